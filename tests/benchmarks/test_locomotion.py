"""Runs of the comparison on tiny budgets, killed ones too, and what they write."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.locomotion import methods, paths, plain, report, runs, scoring, speed
from benchmarks.locomotion.iteration_log import IterationLog
from benchmarks.locomotion.learners import MetaLearner, evaluation_points
from benchmarks.locomotion.methods import FAMILIES, METHODS, make_model, plain_settings, settings_of
from sb3_bomrl import BOMRL, make_meta_vec_env
from sb3_bomrl.envs.tasks import SquareTasks
from sb3_bomrl.zoo import REGISTRY

ROOT = Path(__file__).parents[2]
TINY = {"n_envs": 4, "meta_batch_size": 2, "n_steps": 20, "n_inner_steps": 2}
PROTOCOL = runs.Protocol(
    n_segments=2,
    n_episodes=2,
    n_adaptations=1,
    n_eval_episodes=2,
    max_tasks=9,
    n_adaptations_before=0,
    n_eval_episodes_before=1,
    max_tasks_before=4,
)
ITERATION = 2 * 4 * 20


def tiny_run(folder, method="bomrl-alg1", seed=0, n_iterations=4, **kwargs):
    place = runs.Place(folder / "results", folder / "checkpoints", policies=folder / "policies")
    return runs.run(method, "Navigation2D", seed, n_iterations * ITERATION, "test", place, PROTOCOL, TINY, **kwargs)


def content_of(path):
    content = json.loads(path.read_text())
    for row in content["rows"]:
        del row["train_seconds"]
    return content


@pytest.fixture(autouse=True)
def _two_environments_per_task(monkeypatch):
    for module in (scoring, plain):
        monkeypatch.setattr(module, "N_ENVS_PER_TASK", 2)


@pytest.fixture
def small_plain(monkeypatch):
    """Few environments of the methods that step them one by one."""
    for module in (methods, plain):
        monkeypatch.setattr(module, "N_ENVS", 4)
        monkeypatch.setattr(module, "N_TRIALS", 2)
        monkeypatch.setattr(module, "EPISODES_PER_TRIAL", 2)


def test_few_tasks_are_adapted_to_repeatedly():
    forward, backward = scoring.choose_tasks("HalfCheetahDir", 2)
    assert forward != backward
    assert scoring.choose_tasks("HalfCheetahDir", None) == [forward] * 10 + [backward] * 10
    assert scoring.choose_tasks("HalfCheetahDir", 10) == [forward] * 5 + [backward] * 5
    assert scoring.choose_tasks("HalfCheetahDir", 3) == [forward, backward]
    assert scoring.choose_tasks("HalfCheetahDir", 1) == [forward]
    speeds = scoring.choose_tasks("HalfCheetahVel", None)
    assert len(set(speeds)) == len(speeds) == 19
    assert scoring.choose_tasks("HalfCheetahVel", 10) == speeds[::2]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_and_writes_what_the_protocol_says(method, tmp_path, capsys, small_plain):
    path = tiny_run(tmp_path, method)
    content = content_of(path)
    rows, kind = content["rows"], METHODS[method].kind
    n_scores = 1 if kind == "oracle" else 2
    assert [row["is_final"] for row in rows] == [False] * (len(rows) - 1) + [True]
    assert np.shape(rows[-1]["stochastic"]) == np.shape(rows[-1]["deterministic"]) == (n_scores, 9)
    assert rows[-1]["deterministic"] != rows[-1]["stochastic"]
    assert all(np.shape(row["stochastic"]) == np.shape(row["deterministic"]) == (1, 4) for row in rows[:-1])
    all_tasks = SquareTasks().test_tasks
    assert [row["tasks"] for row in (rows[0], rows[-1])] == [[list(task) for task in all_tasks[::n]] for n in (7, 3)]
    episodes = 100 * (1 if kind == "rl2" else 2)
    assert rows[-1]["adaptation_env_steps"] == [k * episodes for k in range(n_scores)]
    assert (content["method"], content["seed"], content["overrides"]) == (method, 0, TINY)
    assert content["provenance"]["command"] == "test"
    assert rows[-1]["commit"] == content["provenance"]["commit"]
    out = capsys.readouterr().out
    if kind == "untrained":
        assert [row["env_steps"] for row in rows] == [0, 0]
    else:
        assert [row["iteration"] for row in rows[-2:]] == [rows[-1]["iteration"]] * 2
        assert 0 < rows[-1]["env_steps"] <= 4 * ITERATION
        assert f"Navigation2D {method} seed 0: {rows[-1]['env_steps']:,} steps" in out
    if kind == "meta":
        assert rows[-1]["env_steps"] > 3 * ITERATION - 1
        assert "meta/post_adapt_return" in rows[-1]["causes"]
    if method.startswith("bomrl"):
        names = {"cg_residual", "negative_curvature_count"}
        assert {f"hypergradient/{name}" for name in names} | {"inner/n_steps", "inner/kl"} <= set(rows[-1]["causes"])
    assert not (tmp_path / "checkpoints" / "Navigation2D" / method / "seed_0").exists()
    assert (tmp_path / "policies" / f"Navigation2D_{method}_seed_0.zip").exists()


def test_the_paths_are_those_of_the_scored_policies(tmp_path, monkeypatch, small_plain):
    names = ["bomrl-alg1", "oracle", "rl2"]  # multitask-trpo adapts by the family's settings
    scored = {name: content_of(tiny_run(tmp_path, name))["rows"][-1] for name in names}
    monkeypatch.setattr(paths, "PLAN", scoring.Plan(1, 2, 2, 9, keeps_paths=True))
    played = json.loads(paths.play(tmp_path / "results", "test", tmp_path / "policies").read_text())["rows"]
    assert [(row["method"], row["seed"]) for row in played] == [(name, 0) for name in names]
    for row in played:
        scores = np.array(scored[row["method"]]["deterministic"])
        assert row["tasks"] == scored[row["method"]]["tasks"][::3]
        assert np.shape(row["paths"]) == (len(scores), 3, 100, 2)
        assert np.abs(np.array(row["paths"])[:, :, 0]).max() == 0.0
        np.testing.assert_allclose(returns_of_paths(row), scores[:, ::3], atol=0.2)


def returns_of_paths(row):
    """Minus the distances to the goals; the start is no step, the last step is not seen and about the one before."""
    offsets = np.array(row["paths"]) - np.array(row["tasks"])[None, :, None]
    distances = np.linalg.norm(offsets, axis=-1)
    return -(distances[..., 1:].sum(-1) + distances[..., -1])


def test_a_killed_run_ends_as_the_one_that_was_left_alone(tmp_path):
    straight = content_of(tiny_run(tmp_path / "straight", n_iterations=14))
    program = (
        "import sys; from pathlib import Path; import torch; torch.set_num_threads(1); "
        "from benchmarks.locomotion import learners, scoring; learners.SAVE_FREQ = 5; scoring.N_ENVS_PER_TASK = 2; "
        "from tests.benchmarks.test_locomotion import tiny_run; tiny_run(Path(sys.argv[1]), n_iterations=14)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    folder = tmp_path / "killed"
    log = folder / "checkpoints" / "Navigation2D" / "bomrl-alg1" / "seed_0" / "iterations.jsonl"
    for n_lines in (6, 12):  # after the checkpoint of the fifth and the tenth meta-iteration, and before the next
        process = subprocess.Popen([sys.executable, "-c", program, folder], env=environment, cwd=ROOT)
        deadline = time.monotonic() + 60
        while not (log.exists() and log.read_text().count("\n") >= n_lines):
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert list(log.parent.glob("checkpoint_*.zip"))
    killed = content_of(tiny_run(folder, n_iterations=14))
    assert killed["rows"] == straight["rows"]
    before, after = (
        BOMRL.load(tmp_path / name / "policies" / "Navigation2D_bomrl-alg1_seed_0.zip")
        for name in ("straight", "killed")
    )
    for a, b in zip(before.policy.parameters(), after.policy.parameters(), strict=True):
        assert a.equal(b)


@pytest.mark.parametrize("method", ["multitask-trpo", "rl2"])
def test_other_methods_go_on_from_the_last_evaluation(method, tmp_path, monkeypatch, small_plain):
    train, calls = plain.PlainLearner.train, []

    def stopped(self, until):
        calls.append(until)
        if len(calls) == 3:
            raise KeyboardInterrupt
        train(self, until)

    with monkeypatch.context() as patch:
        patch.setattr(plain.PlainLearner, "train", stopped)
        with pytest.raises(KeyboardInterrupt):
            tiny_run(tmp_path, method, n_iterations=8)
    path = tmp_path / "results" / "Navigation2D" / method / "seed_0.json"
    first = content_of(path)["rows"]
    assert len(first) == 2
    rows = content_of(tiny_run(tmp_path, method, n_iterations=8))["rows"]
    assert (len(rows), rows[:2]) == (4, first)
    assert rows[-1]["env_steps"] == 2 * rows[1]["env_steps"] > 0


def test_schedules_follow_the_whole_run(tmp_path):
    settings = {**settings_of("reptile", "Navigation2D"), **TINY}
    learner = MetaLearner("reptile", "Navigation2D", settings, 0, 8 * ITERATION, tmp_path)
    progress = []
    for until in (2, 4, 8):
        learner.train(until)
        progress.append(learner.model._current_progress_remaining)
    assert progress == pytest.approx([0.75, 0.5, 0.0])
    assert (learner.n_done, learner.env_steps) == (8, 8 * ITERATION)


def test_steps_that_do_not_fill_an_iteration_are_not_played(tmp_path):
    settings = {**settings_of("maml", "Navigation2D"), **TINY, "n_inner_steps": 1}
    learner = MetaLearner("maml", "Navigation2D", settings, 0, 3 * ITERATION - 1, tmp_path)
    learner.train(learner.n_iterations)
    assert (learner.n_iterations, learner.n_done, learner.env_steps) == (2, 2, 2 * ITERATION)


def test_checkpoints_of_a_run_of_another_length_are_refused(tmp_path):
    settings = {**settings_of("maml", "Navigation2D"), **TINY, "n_inner_steps": 1}
    learner = MetaLearner("maml", "Navigation2D", settings, 0, 4 * ITERATION, tmp_path)
    learner.train(1)
    with pytest.raises(ValueError, match=f"timesteps must be {4 * ITERATION} to go on with the run"):
        MetaLearner("maml", "Navigation2D", settings, 0, 8 * ITERATION, tmp_path)


def test_a_file_of_another_run_is_not_overwritten(tmp_path):
    path = tiny_run(tmp_path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"holds a run with another timesteps"):
        tiny_run(tmp_path, n_iterations=8)
    tiny_run(tmp_path)  # is complete
    assert path.read_bytes() == before


def test_a_run_that_another_process_is_at_is_left_to_it(tmp_path, capsys):
    folder = tmp_path / "checkpoints" / "Navigation2D" / "bomrl-alg1" / "seed_0"
    folder.mkdir(parents=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = tiny_run(tmp_path)
    assert not path.exists()
    assert "another process is at it" in capsys.readouterr().out


def test_the_log_drops_what_came_after_the_checkpoint_and_half_a_line(tmp_path):
    path = tmp_path / "log" / "iterations.jsonl"
    log = IterationLog(path, 0)
    for i in range(1, 5):
        log.add(i, 0.5, {"inner/kl": float(i), "time/fps": 9.0})
    with path.open("a") as file:
        file.write('{"iteration": 5, "sec')
    log = IterationLog(path, 3)
    assert log.seconds() == 1.5
    assert log.causes(after=1) == {"inner/kl": 2.5}
    assert log.causes(after=3) == {}
    assert len(path.read_text().splitlines()) == 3


def test_evaluations_are_equally_spaced():
    assert evaluation_points(100, 10) == list(range(0, 101, 10))
    assert evaluation_points(3, 10) == [0, 1, 2, 3]
    assert evaluation_points(0, 10) == [0]


def test_unknown_names_are_named():
    with pytest.raises(ValueError, match=r"method must be one of bomrl-alg1, .* got 'sac'"):
        settings_of("sac", "AntVel")
    with pytest.raises(ValueError, match=r"env must be one of HalfCheetahVel, .* got 'Ant'"):
        settings_of("maml", "Ant")


@pytest.mark.parametrize("family", FAMILIES)
def test_methods_share_data_network_and_discount(family):
    common = ("policy", "n_envs", "meta_batch_size", "n_steps", "policy_kwargs", "gamma")
    settings = [settings_of(method, family) for method in METHODS]
    assert len({tuple(str(s.get(name)) for name in common) for s in settings}) == 1
    reference = settings_of("bomrl-alg1", family)
    assert settings_of("random-init", family) == settings_of("multitask-trpo", family) == reference  # adapt alike
    made = plain_settings("multitask-trpo", reference)
    assert made["n_steps"] * methods.N_ENVS == reference["n_steps"] * reference["n_envs"]
    gamma = reference.get("gamma", 0.99)
    assert gamma == made["gamma"] == plain_settings("rl2", reference)["gamma"]
    assert plain_settings("rl2", reference)["n_steps"] == 4 * reference["n_steps"]


def test_overrides_reach_the_model():
    env = make_meta_vec_env("bomrl/HalfCheetahVel-v0", 10)
    settings = {**settings_of("bomrl-alg2", "HalfCheetahVel"), "n_envs": 10, "reg_coef": 0.7}
    model = make_model("bomrl-alg2", env, settings, 3)
    assert (model.distance, model.reg_coef, model.seed, model.policy.log_std[0]) == ("kl_task_meta", 0.7, 3, -0.5)
    assert all(type(method.algorithm) is str and method.algorithm in REGISTRY for method in METHODS.values())


def test_speed_is_measured_in_turns(tmp_path, capsys, small_plain):
    overrides = {name: value for name, value in TINY.items() if name != "n_inner_steps"}
    names = ["bomrl-alg1", "maml", "multitask-trpo"]
    path = speed.measure(names, "Navigation2D", tmp_path, "test", n_rounds=2, overrides=overrides)
    content = json.loads(path.read_text())
    assert [row["method"] for row in content["rows"]] == names
    assert all(len(row["seconds"]) == 2 and min(row["seconds"]) > 0 for row in content["rows"])
    assert [row["env_steps"] for row in content["rows"]] == [ITERATION, ITERATION, 80]
    shown = [line.split(",")[0].split()[1] for line in capsys.readouterr().out.splitlines()]
    assert shown == 3 * names
    speeds = report.seconds_per_step(tmp_path, "Navigation2D")
    assert speeds["maml"] == pytest.approx(np.median(content["rows"][1]["seconds"]) / ITERATION)
    assert report.seconds_per_step(tmp_path, "AntDir") == {}


def test_speed_of_what_does_not_train(tmp_path):
    with pytest.raises(ValueError, match="methods must be some that train, got random-init"):
        speed.measure(["maml", "random-init"], "Navigation2D", tmp_path, "test")
