"""Runs of the comparison on tiny budgets, and what the report makes of them."""

import json

import numpy as np
import pytest
from scipy import stats

from benchmarks.locomotion import figures, report, runs
from benchmarks.locomotion.__main__ import draw
from benchmarks.locomotion.methods import FAMILIES, METHODS, make_model, settings_of
from sb3_bomrl import make_meta_vec_env

TINY = {"n_envs": 10, "meta_batch_size": 2, "n_steps": 100, "n_inner_steps": 2}
PROTOCOL = runs.Protocol(n_segments=2, n_adaptations=2, n_eval_episodes=2, n_eval_episodes_before=1)
ITERATION = 2 * 10 * 100


def tiny_run(folder, method="bomrl-alg1", seed=0, timesteps=4 * ITERATION, **kwargs):
    return runs.run(
        method, "Navigation2D", seed, timesteps, "test", folder / "results", folder / "models", PROTOCOL, TINY, **kwargs
    )


@pytest.fixture(autouse=True)
def _few_support_episodes(monkeypatch):
    monkeypatch.setitem(FAMILIES, "Navigation2D", 2)


def content_of(path):
    content = json.loads(path.read_text())
    for row in content["rows"]:
        del row["train_seconds"]
    return content


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_and_writes_what_the_protocol_says(method, tmp_path, capsys):
    timesteps = 2 * ITERATION
    content = content_of(tiny_run(tmp_path, method, timesteps=timesteps))
    rows = content["rows"]
    assert [row["is_final"] for row in rows] == [False] * (len(rows) - 1) + [True]
    assert rows[-1]["env_steps"] >= timesteps or not METHODS[method].is_trained
    assert len(rows) == (3 if METHODS[method].is_trained else 1)
    assert np.shape(rows[-1]["stochastic"]) == np.shape(rows[-1]["deterministic"]) == (3, 25)
    assert all(np.shape(row["stochastic"]) == (2, 25) for row in rows[:-1])
    assert content["settings"]["meta_batch_size"] == 2
    assert content["provenance"]["command"] == "test"
    if METHODS[method].is_trained:
        assert "meta/post_adapt_return" in rows[-1]["causes"]
        assert f"Navigation2D {method} seed 0: {rows[-1]['env_steps']:,} steps" in capsys.readouterr().out


def test_a_run_that_is_stopped_goes_on_to_the_same_end(tmp_path, monkeypatch):
    straight = content_of(tiny_run(tmp_path / "straight"))
    train, calls = runs._train, []

    def stopped(model, n_steps):
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(n_steps)
        return train(model, n_steps)

    monkeypatch.setattr(runs, "_train", stopped)
    with pytest.raises(KeyboardInterrupt):
        tiny_run(tmp_path / "stopped")
    monkeypatch.setattr(runs, "_train", train)
    assert content_of(tiny_run(tmp_path / "stopped"))["rows"] == straight["rows"]
    assert content_of(tiny_run(tmp_path / "stopped"))["rows"] == straight["rows"]  # nothing is left to do


def test_a_file_of_another_run_is_not_overwritten(tmp_path):
    tiny_run(tmp_path)
    with pytest.raises(ValueError, match=r"holds a run with another timesteps"):
        tiny_run(tmp_path, timesteps=8 * ITERATION)


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


def test_overrides_reach_the_model():
    env = make_meta_vec_env("bomrl/HalfCheetahVel-v0", 10)
    settings = {**settings_of("bomrl-alg2", "HalfCheetahVel"), "n_envs": 10, "reg_coef": 0.7}
    model = make_model("bomrl-alg2", env, settings, 3)
    assert (model.distance, model.reg_coef, model.seed, model.policy.log_std[0]) == ("kl_task_meta", 0.7, 3, -0.5)


def test_interquartile_mean_and_its_interval():
    scores = np.random.default_rng(0).normal(5.0, 2.0, (6, 16))
    ordered = np.sort(scores.ravel())
    result = report.estimate(scores)
    assert result.value == pytest.approx(ordered[24:72].mean())
    # independent draws of whole columns' entries, by scipy's own bootstrap of one column at a time
    whole = stats.bootstrap(
        tuple(scores.T), lambda *columns: stats.trim_mean(np.concatenate(columns), 0.25), n_resamples=2_000,
        method="percentile", vectorized=False, rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    assert (result.low, result.high) == (pytest.approx(whole.low, abs=0.05), pytest.approx(whole.high, abs=0.05))
    alone = report.estimate(scores[:1])
    assert alone.low == alone.value == alone.high


def test_profiles_and_the_probability_of_improvement_by_hand():
    thresholds, share = report.performance_profile(np.array([[3.0, 1.0], [2.0, 4.0]]))
    assert (thresholds.tolist(), share.tolist()) == ([1.0, 2.0, 3.0, 4.0], [1.0, 0.75, 0.5, 0.25])
    # first task: 2 of 4 pairs won, one tie; second task: all lost
    scores, others = np.array([[1.0, 0.0], [3.0, 0.0]]), np.array([[1.0, 5.0], [2.0, 5.0]])
    assert report.probability_of_improvement(scores, others) == pytest.approx((2.5 / 4 + 0.0) / 2)


def test_nothing_to_draw_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"results must have a finished run, found none in"):
        figures.figure_2(tmp_path, tmp_path / "figure.png")
    with pytest.raises(ValueError, match=r"against must be one of env_steps, train_seconds, got 'epochs'"):
        figures.figure_5(tmp_path, tmp_path / "figure.png", "epochs")


def test_the_table_and_the_figures_report_every_group(tmp_path, monkeypatch):
    for method, seed in (("bomrl-alg1", 0), ("bomrl-alg1", 1), ("random-init", 0)):
        tiny_run(tmp_path, method, seed, 2 * ITERATION)
    lines = report.markdown_table(tmp_path / "results").splitlines()
    assert len(lines) == 2 + 2 * 2
    run = content_of(tmp_path / "results" / "Navigation2D" / "random-init" / "seed_0.json")
    expected = stats.trim_mean(run["rows"][-1]["deterministic"][1], 0.25)
    row = next(line for line in lines if "random-init" in line and "deterministic" in line)
    assert f"| {expected:.1f} ({expected:.1f}, {expected:.1f})" in row
    drawn = {}
    monkeypatch.setattr(figures, "save_figure", lambda figure, path: drawn.update({path.name: figure}))
    draw(tmp_path / "results", tmp_path)
    assert len(drawn) == 8
    (ax,) = drawn["locomotion_figure2_deterministic.png"].axes
    lines = {line.get_label(): line.get_ydata() for line in ax.lines}
    assert set(lines) == {"bomrl-alg1 (2 seeds)", "random-init (1 seed)"}
    assert lines["random-init (1 seed)"][1] == pytest.approx(expected)
    (ax,) = drawn["locomotion_figure5_env_steps_stochastic.png"].axes
    lines = {line.get_label(): line for line in ax.lines}
    assert lines["bomrl-alg1 (2 seeds)"].get_xdata().tolist() == [0, ITERATION, 2 * ITERATION]
    runs_of = report.group_runs(tmp_path / "results")["bomrl/Navigation2D-v0", "bomrl-alg1", 2 * ITERATION]
    last = stats.trim_mean([run["rows"][-1]["stochastic"][1] for run in runs_of], 0.25, axis=None)
    assert lines["bomrl-alg1 (2 seeds)"].get_ydata()[-1] == pytest.approx(last)
