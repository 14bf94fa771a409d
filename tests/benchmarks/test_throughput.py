"""What the throughput benchmark computes from its timings, and that its pieces run."""

import json

import pytest

pytest.importorskip("mujoco.batch")

from benchmarks import throughput
from benchmarks.provenance import FIGURES
from benchmarks.throughput import Timing


def test_pieces_take_turns():
    calls = []
    pieces = {name: lambda name=name: calls.append(name) or Timing(10, float(len(calls))) for name in "ab"}
    timings = throughput.interleaved(pieces, 5)
    assert calls == ["a", "b"] * 6  # one round to warm up
    assert [t.seconds for t in timings["a"]] == [3.0, 5.0, 7.0, 9.0, 11.0]


def test_rates_are_relative_and_the_file_keeps_what_did_not_run(tmp_path):
    path = tmp_path / "results" / "throughput.json"
    timings = {"raw": [Timing(100, s) for s in (1.0, 9.0, 2.0)], "meta_iteration/default": [Timing(100, 4.0)]}
    throughput.merge(path, throughput.rows_of(timings, part="sizes", env="Ant", n_tasks=5), "first")
    throughput.merge(path, throughput.rows_of(timings, part="baselines", env="Ant", n_tasks=5), "second")
    rows = json.loads(path.read_text())["rows"]
    assert [(row["part"], row["command"]) for row in rows] == [("baselines", "second")] * 2 + [("sizes", "first")] * 2
    assert [(row["env_steps_per_second"], row["of_raw"]) for row in rows] == [(25.0, 0.5), (50.0, 1.0)] * 2


def test_the_table_of_the_documentation_is_that_of_the_results():
    rows = json.loads(throughput.PATH.read_text())["rows"]
    assert (FIGURES / "throughput.md").read_text() == throughput.table(rows) + "\n"


@pytest.mark.slow
def test_pieces_run_on_a_small_problem():
    rows = throughput.sizes("HalfCheetah", 1, 2, 1)
    assert [row["what"] for row in rows] == ["raw", "vec_env", "rollouts", *throughput.VARIANTS]
    assert all(row["env_steps_per_second"] > 0 for row in rows)
