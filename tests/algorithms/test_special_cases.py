"""Whole runs of one algorithm that are whole runs of another, bit for bit."""

import pytest

from sb3_bomrl import BOMRL, EMAML, FOMAML, MAML

# Alg(3), the linear surrogate and one SGD step of size α λ, differentiated through
ONE_STEP = {
    "distance": "parameter",
    "surrogate": "linear",
    "inner_solver": "sgd",
    "n_inner_steps": 1,
    "inner_max_kl": 1e9,
}
ONE_FREE_STEP = {"n_adaptation_steps": 1, "inner_max_kl": float("inf")}
OUTER_STEPS = [
    {"outer_step": "trpo", "trust_region": "meta", "line_search": True},
    {"outer_step": "trpo", "trust_region": "adapted"},
    {"outer_step": "adam", "baseline": "value_net", "learning_rate": 1e-2},
]


def run(tiny, cls, **kwargs):
    start = tiny.model(cls=cls, **kwargs)
    before = tiny.params(start)
    after = tiny.params(start.learn(3 * tiny.iteration))
    assert start.n_meta_iterations == 3
    assert tiny.differ(before, after)
    return after


@pytest.mark.parametrize("outer", OUTER_STEPS)
@pytest.mark.parametrize("reg_coef", [1.0, 0.25])  # powers of two scale without rounding
def test_bomrl_with_alg3_one_sgd_step_and_unrolled_is_maml(tiny, outer, reg_coef):
    inner = {**ONE_STEP, "reg_coef": reg_coef, "inner_lr": 0.5 * reg_coef, "hypergradient": "unrolled"}
    maml = run(tiny, MAML, inner_lr=0.5, **ONE_FREE_STEP, **outer)
    tiny.assert_equal(run(tiny, BOMRL, **inner, **outer), maml)
    assert tiny.differ(run(tiny, BOMRL, **{**inner, "inner_lr": 0.4 * reg_coef}, **outer), maml)


@pytest.mark.parametrize("outer", OUTER_STEPS[1:])
def test_bomrl_with_alg3_one_sgd_step_and_first_order_is_fomaml(tiny, outer):
    inner = {**ONE_STEP, "reg_coef": 1.0, "inner_lr": 0.5, "hypergradient": "first_order"}
    fomaml = run(tiny, FOMAML, inner_lr=0.5, **ONE_FREE_STEP, **outer)
    tiny.assert_equal(run(tiny, BOMRL, **inner, **outer), fomaml)
    assert tiny.differ(run(tiny, MAML, inner_lr=0.5, **ONE_FREE_STEP, **outer), fomaml)


@pytest.mark.parametrize("outer", OUTER_STEPS[1:])
def test_emaml_without_credit_is_maml(tiny, outer):
    outer = {**outer, "n_adaptation_steps": 1}
    maml = run(tiny, MAML, **outer)
    tiny.assert_equal(run(tiny, EMAML, credit_coef=0.0, **outer), maml)
    assert tiny.differ(run(tiny, EMAML, **outer), maml)
    assert tiny.differ(run(tiny, MAML, surrogate="log", **outer), maml)
