"""Ablations: what they change, and what is drawn of it."""

import json
import sys

import numpy as np
import pytest
from scipy import stats

from benchmarks import ablations
from benchmarks.ablations import VALUES, variants
from benchmarks.locomotion import runs, scoring
from benchmarks.locomotion.methods import make_model, settings_of
from sb3_bomrl import make_meta_vec_env

PROTOCOL = runs.Protocol(1, 2, 1, 1, 4, 0, 1, 4)


@pytest.mark.parametrize("env", ablations.ENVS)
def test_variants_change_one_setting_that_the_method_has(env):
    base = settings_of(ablations.METHOD, env)
    for setting, values in VALUES.items():
        found = list(variants(setting, env))
        assert [variant.label for variant in found] == [f"{setting}={value}" for value in values]
        for value, variant in zip(values, found, strict=True):
            (name,) = variant.overrides
            settings = {**base, **variant.overrides}
            model = make_model(
                ablations.METHOD, make_meta_vec_env(f"bomrl/{env}-v0", settings["n_envs"]), settings, seed=0
            )
            if setting == "n_episodes":
                assert (name, variant.protocol.n_episodes) == ("n_envs", value)
                assert model.env.num_envs == value * model.meta_batch_size
            else:
                assert (name, getattr(model, setting)) == (setting, value)
                assert variant.protocol == runs.PROTOCOL


def test_a_variant_runs_and_its_file_says_what_was_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "N_ENVS_PER_TASK", 1)
    monkeypatch.setattr(variants, "__defaults__", (PROTOCOL,))
    monkeypatch.setitem(VALUES, "hypergradient", ("first_order", "unrolled"))
    tiny = {**settings_of(ablations.METHOD, "Navigation2D"), "n_envs": 4, "meta_batch_size": 2, "n_steps": 20}
    monkeypatch.setattr(runs, "settings_of", lambda *_: tiny)
    words = ["--env", "Navigation2D", "--only", "hypergradient", "--timesteps", "320"]
    folders = ["--results", str(tmp_path / "results"), "--checkpoints", str(tmp_path / "checkpoints")]
    monkeypatch.setattr(sys, "argv", ["ablations", "run", *words, *folders])
    ablations.main()
    for value in ("first_order", "unrolled"):
        path = tmp_path / "results" / "Navigation2D" / f"hypergradient={value}" / "seed_0.json"
        content = json.loads(path.read_text())
        assert content["overrides"] == {"hypergradient": value}
        assert content["settings"]["hypergradient"] == value
        assert content["label"] == f"hypergradient={value}"
        assert content["rows"][-1]["is_final"]
        assert "--only hypergradient --seeds 0 --timesteps 320" in content["provenance"]["command"]
    assert "hypergradient=unrolled | 1 |" in ablations.table(tmp_path / "results")


def test_the_figure_contains_the_data(tmp_path, monkeypatch):
    rng, scores = np.random.default_rng(0), {}
    for value in (20, 1):
        for seed in (0, 1):
            returns = rng.normal(size=(4, 5))
            scores.setdefault(value, []).append(returns)
            row = {"is_final": True, "env_steps": 9, "train_seconds": 1.0, "causes": {"inner/kl": 0.25 * value}}
            row["tasks"] = list(range(5))
            row |= {"deterministic": returns.tolist(), "stochastic": (-returns).tolist()}
            label = f"n_inner_steps={value}"
            head = {"env": "bomrl/Navigation2D-v0", "label": label, "seed": seed, "timesteps": 9}
            path = tmp_path / "Navigation2D" / label / f"seed_{seed}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({**head, "rows": [row]}))
    drawn = []
    monkeypatch.setattr(ablations, "save_figure", lambda figure, path: drawn.append(figure))
    ablations.figure(tmp_path, tmp_path / "figure.png", "deterministic")
    ax, *others = drawn[0].axes
    assert len(others) == 3
    assert not any(other.axison for other in others)  # nothing was run there
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1\n(2 seeds)", "20\n(2 seeds)"]
    for container, k in zip(ax.containers, (0, 1, 3), strict=True):
        expected = [stats.trim_mean(np.array(scores[value])[:, k], 0.25, axis=None) for value in (1, 20)]
        assert container.lines[0].get_ydata() == pytest.approx(expected)
    lines = ablations.table(tmp_path).splitlines()
    assert [line.split(" | ")[2] for line in lines[2:]] == ["n_inner_steps=1", "n_inner_steps=20"]
    before = stats.trim_mean(-np.array(scores[20])[:, 0], 0.25, axis=None)
    assert f"| {before:.1f} |" in lines[3]
    assert lines[3].endswith("| – | – | 5 |")


def test_nothing_to_draw_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"results must have a finished run, found none in"):
        ablations.figure(tmp_path, tmp_path / "figure.png")
