"""Runs of a suite on tiny budgets, killed ones too."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import learners, methods, plain, run, scoring
from benchmarks.learners import MetaLearner
from benchmarks.methods import METHODS, settings_of
from benchmarks.records import Stopwatch, finished_runs, read_rows
from benchmarks.run import CHECKPOINTS, Progress, evaluation_points, run_one
from benchmarks.scoring import choose_tasks
from benchmarks.suites import expand

ROOT = Path(__file__).parents[2]
NAVIGATION = "bomrl/Navigation2D-v0"
TINY = {"n_envs": 4, "meta_batch_size": 2, "n_steps": 20}
ITERATION = 2 * 4 * 20
EVALUATION = {
    "n_evaluations": 2,
    "n_episodes": 2,
    "final": {"n_adaptations": 1, "n_eval_episodes": 2, "max_tasks": 9},
    "training": {"n_adaptations": 0, "n_eval_episodes": 1, "max_tasks": 4},
}


def tiny(method="bomrl-alg1", n_iterations=4):
    more = {"n_inner_steps": 2} if method.startswith("bomrl") else {}
    entry = {"methods": [method], "envs": [NAVIGATION], "seeds": [0], "env_steps": n_iterations * ITERATION}
    (made,) = expand("tiny", {**entry, "overrides": {**TINY, **more}, "evaluation": EVALUATION})
    return made


def do(folder, made):
    path = folder / "tiny.csv"
    return run_one(made, path, folder / "checkpoints", "test", Progress([made])), path


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Few environments."""
    for module in (scoring, plain):
        monkeypatch.setattr(module, "N_ENVS_PER_TASK", 2)
    for module in (methods, plain):
        monkeypatch.setattr(module, "N_ENVS", 4)
        monkeypatch.setattr(module, "N_TRIALS", 2)
        monkeypatch.setattr(module, "EPISODES_PER_TRIAL", 2)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_and_writes_what_the_suite_says(method, tmp_path, capsys):
    made, kind = tiny(method), METHODS[method].kind
    is_done, path = do(tmp_path, made)
    assert is_done
    rows = read_rows(path)
    last = max(row.env_steps for row in rows)
    final = [row for row in rows if row.env_steps == last]
    n_scores = 1 if kind == "oracle" else 2
    assert len(final) == n_scores * 2 * 9
    assert {row.adaptations for row in final} == set(range(n_scores))
    assert {row.method for row in rows} == {made.label}
    assert (last == 0) == (kind == "untrained")
    assert last <= made.env_steps
    if kind != "untrained":
        assert len([row for row in rows if row.env_steps == 0]) == 2 * 4
        assert f"{last:,} of {made.env_steps:,} steps" in capsys.readouterr().out
        assert all(row.seconds > 0 for row in final)
    assert finished_runs(path) == {(made.label, NAVIGATION, 0): made.env_steps}
    assert not list((tmp_path / "checkpoints").rglob("seed_0"))
    assert do(tmp_path, made) == (False, path)  # is finished
    assert read_rows(path) == rows


def without_seconds(path):
    return [row._replace(seconds=0.0) for row in read_rows(path)]


def test_a_killed_run_ends_as_the_one_that_was_left_alone(tmp_path):
    made = tiny(n_iterations=14)
    _, straight = do(tmp_path / "straight", made)
    program = (
        "import sys; from pathlib import Path; import torch; torch.set_num_threads(1); "
        "from benchmarks import scoring; scoring.N_ENVS_PER_TASK = 2; "
        "from tests.benchmarks.test_run import do, tiny; do(Path(sys.argv[1]), tiny(n_iterations=14))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    folder = tmp_path / "killed"
    for n_lines in (4, 10):
        process = subprocess.Popen([sys.executable, "-c", program, folder], env=environment, cwd=ROOT)
        deadline = time.monotonic() + 120
        while sum(log.read_text().count("\n") for log in folder.rglob("seconds.txt")) < n_lines:
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert list(folder.rglob("checkpoint_*.zip"))
    is_done, killed = do(folder, made)
    assert is_done
    assert without_seconds(killed) == without_seconds(straight)


@pytest.mark.parametrize("method", ["multitask-trpo", "rl2"])
def test_other_methods_go_on_from_the_last_evaluation(method, tmp_path, monkeypatch):
    train, calls = plain.PlainLearner.train, []

    def stopped(self, until):
        calls.append(until)
        if len(calls) == 3:
            raise KeyboardInterrupt
        train(self, until)

    made = tiny(method, n_iterations=8)
    with monkeypatch.context() as patch:
        patch.setattr(plain.PlainLearner, "train", stopped)
        with pytest.raises(KeyboardInterrupt):
            do(tmp_path, made)
    first = read_rows(tmp_path / "tiny.csv")
    _, path = do(tmp_path, made)
    rows = read_rows(path)
    assert rows[: len(first)] == first
    steps = sorted({row.env_steps for row in rows})
    assert len(steps) == 3
    assert steps[2] == 2 * steps[1]


def test_an_evaluation_that_was_written_in_part_is_done_again(tmp_path, monkeypatch):
    made = tiny()
    monkeypatch.setattr(run, "record_run", lambda *_: sys.exit())
    with pytest.raises(SystemExit):
        do(tmp_path, made)
    path = tmp_path / "tiny.csv"
    whole = read_rows(path)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-5]))
    with pytest.raises(SystemExit):
        do(tmp_path, made)
    assert read_rows(path) == whole


def test_a_run_that_another_process_is_at_is_left_to_it(tmp_path):
    made = tiny()
    folder = tmp_path / "checkpoints" / "tiny" / "Navigation2D" / made.label / "seed_0"
    folder.mkdir(parents=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert do(tmp_path, made) == (False, tmp_path / "tiny.csv")
    assert not (tmp_path / "tiny.csv").exists()


def test_schedules_follow_the_whole_run(tmp_path):
    learner = MetaLearner("reptile", NAVIGATION, settings_of("reptile", NAVIGATION, TINY), 0, 8 * ITERATION, tmp_path)
    progress = []
    for until in (2, 4, 8):
        learner.train(until)
        progress.append(learner.model._current_progress_remaining)
    assert progress == pytest.approx([0.75, 0.5, 0.0])
    assert (learner.n_done, learner.env_steps) == (8, 8 * ITERATION)


def test_checkpoints_of_a_run_of_another_length_are_refused(tmp_path):
    settings = settings_of("maml", NAVIGATION, TINY)
    MetaLearner("maml", NAVIGATION, settings, 0, 4 * ITERATION, tmp_path).train(1)
    with pytest.raises(ValueError, match=f"env_steps must be {4 * ITERATION} to go on with the run"):
        MetaLearner("maml", NAVIGATION, settings, 0, 8 * ITERATION, tmp_path)


def test_the_stopwatch_drops_what_came_after_the_checkpoint_and_half_a_line(tmp_path):
    path = tmp_path / "log" / "seconds.txt"
    for seconds in (0.5, 1.0, 2.0):
        stopwatch = Stopwatch(path, 3)
        stopwatch.add(seconds)
    with path.open("a") as file:
        file.write("3.")
    assert Stopwatch(path, 2).seconds == [0.5, 1.0]
    assert path.read_text() == "0.5\n1.0\n"


def test_evaluations_are_equally_spaced():
    assert evaluation_points(100, 10) == list(range(0, 101, 10))
    assert evaluation_points(3, 10) == [0, 1, 2, 3]
    assert evaluation_points(0, 10) == [0]


def test_few_tasks_are_adapted_to_repeatedly():
    forward, backward = choose_tasks("bomrl/HalfCheetahDir-v0", 2)
    assert choose_tasks("bomrl/HalfCheetahDir-v0", None) == [forward] * 10 + [backward] * 10
    assert choose_tasks("bomrl/HalfCheetahDir-v0", 10) == [forward] * 5 + [backward] * 5
    assert choose_tasks("bomrl/HalfCheetahDir-v0", 1) == [forward]
    speeds = choose_tasks("bomrl/HalfCheetahVel-v0", None)
    assert len(set(speeds)) == len(speeds) == 19
    assert choose_tasks("bomrl/HalfCheetahVel-v0", 10) == speeds[::2]


def test_unknown_filters_end_the_command(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["run", "comparison", "--method", "sac"])
    with pytest.raises(SystemExit, match=r"method must be among .* got \['sac'\]"):
        run.main()
    assert CHECKPOINTS.parts == ("runs",)
    assert learners.SAVE_FREQ == 1
