"""What the throughput benchmark computes from its timings, on timings that are known."""

import json

import pytest

pytest.importorskip("mujoco.batch")

from benchmarks import throughput, throughput_scaling, throughput_threads
from benchmarks.throughput_models import Timing


def test_the_exponent_of_a_power_law():
    sizes = (1, 2, 4, 8, 16)
    assert throughput_scaling.slope(sizes, [3.0 * n**0.8 for n in sizes]) == pytest.approx(0.8)
    # what the small sizes cost whatever they are does not count as slow growth of the large ones
    assert throughput_scaling.slope(sizes, [5.0, 5.0, 5.0, 10.0, 20.0]) == pytest.approx(1.0)


def test_pieces_take_turns_and_long_rounds_are_repeated_less_often(monkeypatch):
    calls = []
    pieces = {name: lambda name=name: calls.append(name) or Timing(10, float(len(calls))) for name in "ab"}
    timings, done = throughput.interleaved(pieces, 5)
    assert done == 5
    assert calls == ["a", "b"] * 6  # one round to warm up
    assert [t.seconds for t in timings["a"]] == [3.0, 5.0, 7.0, 9.0, 11.0]
    monkeypatch.setattr(throughput, "SECONDS_OF_A_LONG_ROUND", -1.0)
    assert throughput.interleaved(pieces, 5)[1] == throughput.REPETITIONS_OF_LONG_ROUNDS


def test_ratios_and_the_file_keep_what_did_not_run(tmp_path, capsys):
    path = tmp_path / "results" / "throughput.json"
    phases = {"rollout": 1.0, "adapt": 0.5, "hypergradient": 0.3, "outer": 0.2}
    common = {"env": "Ant", "n_tasks": 5}
    timings = {"raw": [Timing(100, s) for s in (1.0, 9.0, 2.0)], "meta_iteration/default": [Timing(100, 4.0, phases)]}
    throughput.merge(path, throughput.rows_of(timings, part="sizes", **common), "first")
    slow = {**timings, "meta_iteration/slow": [Timing(100, 8.0, phases)]}
    throughput.merge(path, throughput.rows_of(slow, part="baselines", **common), "second")
    content = json.loads(path.read_text())
    assert {(row["part"], row["what"], row["command"]) for row in content["rows"]} == {
        ("sizes", "raw", "first"),
        ("sizes", "meta_iteration/default", "first"),
        ("baselines", "raw", "second"),
        ("baselines", "meta_iteration/default", "second"),
        ("baselines", "meta_iteration/slow", "second"),
    }
    raw = next(row for row in content["rows"] if row["part"] == "sizes" and row["what"] == "raw")
    assert (raw["seconds"], raw["env_steps_per_second"], raw["repetitions"]) == (2.0, 50.0, 3)
    found = {(row["part"], row["what"]): row for row in content["ratios"]}
    assert found["sizes", "meta_iteration/default"]["of_raw"] == 0.5
    assert found["baselines", "meta_iteration/slow"]["default_is_faster_by"] == 2.0
    assert content["provenance"]["versions"]["mujoco"]
    assert "Ant" in capsys.readouterr().out
    assert not [file for file in path.parent.iterdir() if file != path]


def test_thread_counts_and_overlap_are_timed_on_a_small_problem():
    rows = [row for part in throughput_threads.measure(2, 1, 5, 1) for row in part]
    pairs = [tuple(row["value"]) for row in rows if "value" in row]
    assert len(pairs) == len(set(pairs)) >= 1
    assert {row["what"] for row in rows if "value" not in row} == {"one after the other", "side by side"}
    assert all(row.get("seconds", row.get("learning_seconds")) > 0 for row in rows)
