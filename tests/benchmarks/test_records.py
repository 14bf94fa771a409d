"""The CSV of a suite, written by several processes that may be killed, and the JSON beside it."""

import json
import multiprocessing

import numpy as np
import pytest

from benchmarks import records
from benchmarks.provenance import write_json
from benchmarks.records import append_rows, finished_runs, read_rows, record_run, rows_of
from benchmarks.scoring import Scores
from benchmarks.suites import expand

ENTRY = {"methods": ["maml"], "envs": ["bomrl/AntDir-v0"], "seeds": [0, 1], "env_steps": 10}
RUN, OTHER = expand("small", ENTRY)


def rows(run=RUN, value=1.0, env_steps=10, tasks=(1, -1)):
    returns = {kind: np.full((2, len(tasks)), value) for kind in ("stochastic", "deterministic")}
    return rows_of(run, env_steps, 2.0, Scores(list(tasks), returns))


def test_rows_come_back(tmp_path):
    path = tmp_path / "results" / "small.csv"
    assert read_rows(path) == []
    written = rows(tasks=[(0.5, -0.25), 3])
    append_rows(path, written)
    append_rows(path, rows(OTHER))
    assert read_rows(path)[: len(written)] == written
    assert len(read_rows(path)) == 2 * len(written)
    head = path.read_text().splitlines()[0]
    assert head == "suite,method,env,seed,env_steps,adaptations,policy,task,return,seconds,commit"
    assert written[0].task == "[0.5,-0.25]"


def test_a_task_that_was_adapted_to_repeatedly_has_one_row_with_the_mean():
    scores = Scores([1, -1, 1], {"stochastic": np.array([[1.0, 5.0, 2.0]])})
    assert [(row.task, row.score) for row in rows_of(RUN, 0, 0.0, scores)] == [("1", 1.5), ("-1", 5.0)]


@pytest.mark.parametrize(
    "half", ["small,maml,bomrl/AntDir-v0,0,10,1,stoch", "small,maml,bomrl/AntDir-v0,0,10,0,x,1,2.5,1,ab"]
)
def test_half_a_row_is_skipped_and_then_goes(tmp_path, half):
    path = tmp_path / "small.csv"
    append_rows(path, rows())
    with path.open("a") as file:
        file.write(half)
    assert read_rows(path) == rows()
    append_rows(path, rows(OTHER))
    assert read_rows(path) == rows() + rows(OTHER)
    assert half not in path.read_text().splitlines()


def test_rows_that_cannot_be_read_are_skipped(tmp_path):
    path = tmp_path / "small.csv"
    append_rows(path, rows())
    path.write_text(path.read_text() + "small,maml,x,zero,10,1,stochastic,1,2.0,1,ab\nsmall,maml\n")
    assert read_rows(path) == rows()


def test_the_last_of_two_evaluations_counts(tmp_path):
    path = tmp_path / "small.csv"
    append_rows(path, rows(value=1.0))
    append_rows(path, rows(value=2.0))
    assert read_rows(path) == rows(value=2.0)


def write_many(path, seed):
    for step in range(20):
        append_rows(path, rows(RUN._replace(seed=seed), env_steps=step))


def test_processes_append_side_by_side(tmp_path):
    path, context = tmp_path / "small.csv", multiprocessing.get_context("fork")
    processes = [context.Process(target=write_many, args=(path, seed)) for seed in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert len(read_rows(path)) == 3 * 20 * len(rows())
    assert len(path.read_text().splitlines()) == 1 + 3 * 20 * len(rows())


def test_the_provenance_holds_each_setting_once(tmp_path):
    path = tmp_path / "small.csv"
    for run in (RUN, OTHER, RUN._replace(env_steps=20)):
        record_run(path, run, {"inner_lr": 0.1}, "the command")
    content = json.loads(path.with_suffix(".json").read_text())
    assert content["settings"] == [{"inner_lr": 0.1}]
    assert content["commands"] == ["the command"]
    assert content["versions"][0]["torch"]
    assert finished_runs(path) == {("maml", "bomrl/AntDir-v0", 0): 20, ("maml", "bomrl/AntDir-v0", 1): 10}


def test_json_has_a_line_per_element(tmp_path):
    content = {"a": [1, {"b": 2}], "c": {"d": []}, "e": []}
    path = write_json(tmp_path / "x.json", content)
    assert json.loads(path.read_text()) == content
    assert len(path.read_text().splitlines()) == 8
    assert records.read_provenance(tmp_path / "none.csv")["runs"] == []
