"""Other solutions of the lower level: what is reported of them, and how they are scored."""

import json
import sys

import numpy as np
import pytest
import torch as th

from benchmarks import inner_quality
from benchmarks.inner_quality import CHOICES, Choice, difference, gain_of, measure, solve
from benchmarks.locomotion.policies import load_policy, policy_path
from benchmarks.provenance import FIGURES, RESULTS
from sb3_bomrl import make_meta_vec_env
from sb3_bomrl.core.params import stack
from sb3_bomrl.meta.lower_level import LowerLevel
from sb3_bomrl.types import Experience

N_TASKS = 2


@pytest.fixture(scope="module")
def model():
    return load_policy("Navigation2D", "bomrl-alg2")


@pytest.fixture(scope="module")
def support(model):
    env = make_meta_vec_env("bomrl/Navigation2D-v0", 10)
    collector = model.make_collector(env, np.random.default_rng(0))
    rollout = collector.collect_episodes([(0.3, -0.2), (-0.4, 0.1)], stack(model.actor.params(), N_TASKS), 10)
    return Experience(rollout, model.full_batch(rollout))


def settings(model):
    return model.inner_lr, model.n_inner_steps, model.reg_coef


def test_as_in_training_is_the_models_own_adaptation(model, support):
    before = settings(model)
    own = model.adapt_to(stack(model.actor.params(), N_TASKS), support.rollout)
    found = solve(model, Choice(), support)
    assert all(th.equal(found.params[name], value) for name, value in own.items())
    assert settings(model) == before


@pytest.mark.parametrize("choice", [Choice(step_size=0.5), Choice(n_steps=2), Choice(reg_coef=0.5)])
def test_a_choice_is_what_a_model_with_those_settings_does(model, support, choice):
    other = load_policy("Navigation2D", "bomrl-alg2")
    other.inner_lr *= choice.step_size
    other.n_inner_steps *= choice.n_steps
    other.reg_coef *= choice.reg_coef
    expected = other.adapt_to(stack(model.actor.params(), N_TASKS), support.rollout)
    before = settings(model)
    found = solve(model, choice, support)
    assert all(th.equal(found.params[name], value) for name, value in expected.items())
    assert settings(model) == before
    own = solve(model, Choice(), support).params
    assert any((found.params[name] != value).any() for name, value in own.items())


def test_the_gain_does_not_depend_on_the_weight_it_was_solved_with(model, support):
    adapted = solve(model, Choice(reg_coef=0.3), support)
    lower = LowerLevel(model.actor, support.batch, model.distance, model.surrogate, model.reg_coef)
    with th.no_grad():
        own = lower.loss(adapted.params, stack(model.actor.params(), N_TASKS))
    found = adapted.distance - gain_of(adapted, 0.3 * model.reg_coef) / model.reg_coef
    np.testing.assert_allclose(found, own, rtol=1e-4)
    assert (gain_of(adapted, 0.3 * model.reg_coef) > 0.0).all()  # better on the support data, in its own estimate


def test_rows_say_what_was_solved(model, monkeypatch):
    monkeypatch.setattr(inner_quality, "N_EVAL_EPISODES", 5)
    rows = {row["choice"]: row for row in measure(model, "Navigation2D", 4)}
    assert list(rows) == list(CHOICES)
    assert {len(row["returns"]) for row in rows.values()} == {4}
    own, better = rows["as in training"], rows["4 times as many steps"]
    assert better["objective"] < own["objective"]
    assert rows["steps 10 times smaller"]["objective"] > own["objective"]
    more = rows["4 times the episodes"]
    assert more["gain"] < own["gain"]  # less of it is noise
    assert rows["λ 10 times smaller"]["kl"] > own["kl"] > rows["λ 3 times larger"]["kl"]


def test_a_difference_is_of_pairs():
    ones, others = {"returns": [1.0, 10.0, 100.0]}, {"returns": [0.0, 7.0, 98.0]}
    mean, error = difference(ones, others)
    assert (mean, error) == pytest.approx((2.0, 1.0 / 3**0.5))


def test_the_command_writes_what_the_table_shows(tmp_path, monkeypatch):
    rows = [{"choice": name, "objective": -1.0, "gain": 0.5, "kl": 0.25, "gradient_norm": 2.0} for name in CHOICES]
    rows = [{**row, "kl_limit": 0.0, "returns": [5.0 + i, 3.0 + i]} for i, row in enumerate(rows)]
    monkeypatch.setattr(inner_quality, "measure", lambda *_: rows)
    words = ["run", "--env", "Navigation2D", "--method", "bomrl-alg2"]
    monkeypatch.setattr(sys, "argv", ["inner_quality", *words, "--results", str(tmp_path)])
    inner_quality.main()
    content = json.loads((tmp_path / "Navigation2D_bomrl-alg2.json").read_text())
    assert content["provenance"]["command"] == f"python -m benchmarks.inner_quality {' '.join(words)}"
    assert content["policy_file"] == policy_path("Navigation2D", "bomrl-alg2").name
    lines = inner_quality.table(tmp_path).splitlines()
    assert lines[2] == "| Navigation2D | bomrl-alg2 | as in training | -1 | 0.5 | 0.25 | 2 | 4.0 | – |"
    assert lines[3].endswith("| 5.0 | 1.0 ± 0.0 |")


def test_the_table_of_the_documentation_is_that_of_the_results():
    shown = (FIGURES / "inner_quality.md").read_text()
    assert shown == inner_quality.table(RESULTS / "inner_quality") + "\n"
