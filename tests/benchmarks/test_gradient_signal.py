"""Signal and agreement of hypergradients: the statistics, and what they are taken from."""

import json
import sys

import numpy as np
import pytest
import torch as th

from benchmarks import gradient_signal
from benchmarks.gradient_signal import make_standing_still
from benchmarks.gradient_signal_choices import CHOICES
from benchmarks.gradient_signal_statistics import Sample, jackknife, mean_of_pairs, summarize
from benchmarks.locomotion.methods import make_model, settings_of
from benchmarks.provenance import FIGURES, RESULTS
from sb3_bomrl import make_meta_vec_env
from sb3_bomrl.core.params import flatten

TINY = {"n_envs": 32, "meta_batch_size": 4, "n_steps": 50}


@pytest.fixture
def tiny(monkeypatch):
    def settings(method, _):
        n_inner_steps = {"bomrl-alg1": 3, "maml": 1}[method]
        return {**settings_of(method, "Navigation2D"), **TINY, "n_inner_steps": n_inner_steps}

    monkeypatch.setattr(gradient_signal, "settings_of", settings)
    return settings


def noisy_samples(expected, noise, scale):
    """Steps of length 0.1 along gradients, in the Euclidean metric."""
    gradients = scale * (expected + noise)
    return [Sample(g, 0.1 * g / np.linalg.norm(g), None) for g in gradients]


def test_signal_and_agreement_of_known_gradients():
    n, d, sigma = 60, 4000, 0.1
    rng = np.random.default_rng(0)
    e, noise = np.eye(d), sigma * rng.normal(size=(n, d))  # the noise is the same for both
    samples = {"implicit": noisy_samples(e[0], noise, 1.0), "other": noisy_samples(0.6 * e[0] + 0.8 * e[1], noise, 7.0)}
    rows = {row["hypergradient"]: row for row in summarize(samples)}
    for row, other, scale in ((rows["implicit"], "other", 1.0), (rows["other"], "implicit", 7.0)):
        signal, error = row["signal"]
        assert signal == pytest.approx(1.0 / (1.0 + d * sigma**2), abs=4.0 * error)
        assert error < 0.01
        agreement, error = row["agreement"][other]
        assert agreement == pytest.approx(0.6, abs=4.0 * error)
        assert error < 0.15
        assert row["gradient_norm"] == pytest.approx(scale * (1.0 + d * sigma**2) ** 0.5, rel=0.02)
        assert row["cg_residual"] is None


def test_steps_of_pure_noise_have_no_signal():
    noise = np.random.default_rng(1).normal(size=(40, 500))
    (row,) = summarize({"implicit": noisy_samples(0.0, noise, 1.0)})
    signal, error = row["signal"]
    assert abs(signal) < 4.0 * error < 0.05


def test_a_step_that_was_not_taken_has_no_cosine():
    gradients = np.ones((3, 4))
    samples = [Sample(g, taken * g, None) for g, taken in zip(gradients, (1.0, 1.0, 0.0), strict=True)]
    (row,) = summarize({"implicit": samples})
    assert row["signal"][0] == pytest.approx(2.0 / 6.0)  # of six ordered pairs, the two of the steps that were taken


def test_without_signal_there_is_no_agreement():
    rng = np.random.default_rng(3)
    signs = np.array([1.0, -1.0, 1.0, -1.0])[:, None]  # opposite steps: their mean cosine is negative
    samples = {"implicit": noisy_samples(1.0, 0.1 * rng.normal(size=(4, 50)), 1.0)}
    samples["other"] = noisy_samples(0.0, signs * np.ones((4, 50)), 1.0)
    for row, other in zip(summarize(samples), ("other", "implicit"), strict=True):
        assert row["agreement"] == {other: None}


def test_jackknife_of_a_mean_is_the_standard_error():
    x = np.random.default_rng(2).normal(size=12)
    value, error = jackknife(mean_of_pairs, (x[:, None] + x) / 2)
    assert value == pytest.approx(x.mean())
    assert error == pytest.approx(x.std(ddof=1) / 12**0.5)


MODES = ["implicit", "first_order", "unrolled", "implicit_sampling"]


@pytest.mark.parametrize(("method", "mode"), [*(("bomrl-alg1", mode) for mode in MODES), ("maml", "MAML's")])
def test_a_recorded_step_is_the_one_that_training_takes(tiny, method, mode):
    model = make_standing_still("Navigation2D", "untrained", method=method)
    before = flatten({name: value[None] for name, value in model.actor.params().items()})[0]
    first, second = model.samples(2)[mode]
    after = flatten({name: value[None] for name, value in model.actor.params().items()})[0]
    assert th.equal(before, after)
    assert not np.allclose(first.step, second.step)

    settings = {**tiny(method, None), "outer_step": "trpo", "line_search": False}
    settings |= {"hypergradient": mode} if mode in MODES else {}
    env = make_meta_vec_env("bomrl/Navigation2D-v0", TINY["n_envs"], seed=0)
    trained = make_model(method, env, settings, seed=0).learn(1)
    moved = flatten({name: value[None] for name, value in trained.actor.params().items()})[0]
    np.testing.assert_allclose(first.step, (moved - before).double().numpy(), rtol=1e-5, atol=1e-7)
    assert np.abs(first.step).max() > 1e-4


def test_more_iterations_leave_a_smaller_residual(tiny):
    found = make_standing_still("Navigation2D", "untrained").samples(1)
    few, many = (found[name][0].residual for name in ("implicit", "implicit, 50 CG iterations"))
    assert many <= few


def test_trained_parameters_are_loaded():
    trained, untrained = (make_standing_still("Navigation2D", policy) for policy in ("trained", "untrained"))
    kept = gradient_signal.BOMRL.load(gradient_signal.policy_path("Navigation2D", "bomrl-alg1"), device="cpu")
    for name, value in kept.actor.params().items():
        assert th.equal(trained.actor.params()[name], value)
    assert any((trained.actor.params()[name] != value).any() for name, value in untrained.actor.params().items())


COMMANDS = [("bomrl-alg1", [], "", list(CHOICES)), ("maml", ["--method", "maml"], "_maml", ["MAML's"])]


@pytest.mark.parametrize(("method", "words", "suffix", "rows"), COMMANDS)
def test_the_command_writes_what_the_table_shows(tiny, tmp_path, monkeypatch, method, words, suffix, rows):
    words = ["run", "--env", "Navigation2D", "--policy", "trained", *words, "--meta-batches", "3"]
    monkeypatch.setattr(sys, "argv", ["gradient_signal", *words, "--results", str(tmp_path)])
    gradient_signal.main()
    content = json.loads((tmp_path / f"Navigation2D{suffix}_trained.json").read_text())
    assert content["provenance"]["command"] == f"python -m benchmarks.gradient_signal {' '.join(words)}"
    assert content["policy_file"] == gradient_signal.policy_path("Navigation2D", method).name
    assert [row["hypergradient"] for row in content["rows"]] == rows
    lines = gradient_signal.table(tmp_path).splitlines()
    assert len(lines) == 2 + len(rows)
    value, error = content["rows"][0]["signal"]
    assert f"| Navigation2D | trained | {rows[0]} | " in lines[2]
    assert f" | {value:.2f} ± {error:.2f} | " in lines[2]
    itself = (lines[2].split(" | ")[-2], lines[-1].removesuffix(" |").split(" | ")[-1])
    assert itself == ("–", "–")


def test_the_table_shows_agreements_that_are_known_well_enough(tmp_path):
    def row(name, agreement):
        return {
            "hypergradient": name,
            "gradient_norm": 1.0,
            "cg_residual": None,
            "signal": [0.2, 0.6],
            "agreement": agreement,
        }

    # of a run without the choices that came later
    rows = [row("implicit", {"first_order": [0.4, 0.5], "implicit_sampling": [1.3, 0.51]})]
    rows += [row("first_order", {"implicit": [0.4, 0.5], "implicit_sampling": None})]
    rows += [row("implicit_sampling", {"implicit": [1.3, 0.51], "first_order": None})]
    content = {"env": "Navigation2D", "policy": "trained", "rows": rows}
    (tmp_path / "Navigation2D_trained.json").write_text(json.dumps(content))
    header, rule, *lines = gradient_signal.table(tmp_path).splitlines()
    assert header.endswith(" | signal | agreement with `implicit` | agreement with `implicit_sampling` |")
    assert {line.count("|") for line in (header, rule, *lines)} == {9}
    start = "| Navigation2D | trained |"
    assert lines == [
        f"{start} implicit | 1 | – | 0.20 ± 0.60 | – | – |",
        f"{start} first_order | 1 | – | 0.20 ± 0.60 | 0.40 ± 0.50 | – |",
        f"{start} implicit_sampling | 1 | – | 0.20 ± 0.60 | – | – |",
    ]


def test_the_table_of_the_documentation_is_that_of_the_results():
    shown = (FIGURES / "gradient_signal.md").read_text()
    assert shown == gradient_signal.table(RESULTS / "gradient_signal") + "\n"


def test_too_few_meta_batches_are_said(monkeypatch):
    words = ["run", "--env", "Navigation2D", "--policy", "untrained", "--meta-batches", "2"]
    monkeypatch.setattr(sys, "argv", ["gradient_signal", *words])
    with pytest.raises(SystemExit, match="--meta-batches must be at least 3, got 2"):
        gradient_signal.main()
