"""The weight of the distance that sets itself, against quadratic lower levels whose KL is known."""

import pytest
import torch as th
from gymnasium import spaces

from sb3_bomrl.meta.reg_coef import calibrated_reg_coef, default_target_kl, next_reg_coef
from sb3_bomrl.types import Batch

SCALES = th.tensor([0.2, 1.0, 5.0], dtype=th.float64)


def batch(advantages: th.Tensor) -> Batch:
    weights = th.full_like(advantages, 1 / advantages.shape[1])
    nothing = th.zeros_like(advantages)
    return Batch(nothing, nothing, nothing, advantages, weights)


def quadratic_kl(unit: float):
    """The minimiser of −gθ/λ + ½θ² is g/λ, at a KL of ½(g/λ)²."""
    return lambda reg_coef: 0.5 * (SCALES * unit / reg_coef) ** 2


@pytest.mark.parametrize("unit", [1e-10, 1e-3, 1.0, 1e12])
def test_calibration_finds_the_coefficient_of_any_unit(unit):
    data = batch(unit * th.randn(3, 50, generator=th.Generator().manual_seed(0), dtype=th.float64))
    found = calibrated_reg_coef(quadratic_kl(unit), data, target_kl=0.1)
    exact = unit * (0.5 / 0.1) ** 0.5  # of the median task, whose g is 1
    assert found == pytest.approx(exact, rel=0.12)


def test_updates_end_at_the_known_coefficient():
    reg_coef = 100.0
    for _ in range(60):
        reg_coef = next_reg_coef(reg_coef, quadratic_kl(1.0)(reg_coef), 0.1)
    assert reg_coef == pytest.approx((0.5 / 0.1) ** 0.5, rel=1e-6)


def test_a_change_is_bounded():
    assert next_reg_coef(1.0, th.tensor([50.0, 50.0, 50.0]), 0.1) == pytest.approx(1.3)
    assert next_reg_coef(1.0, th.tensor([1e-9, 1e-9]), 0.1) == pytest.approx(1 / 1.3)


def test_tasks_that_do_not_move_have_no_say():
    assert next_reg_coef(2.0, th.zeros(4), 0.1) == 2.0
    assert next_reg_coef(2.0, th.tensor([0.0, 0.0, 0.0, 0.1]), 0.1) == pytest.approx(2.0)
    assert 0 < calibrated_reg_coef(lambda reg_coef: th.zeros(3), batch(th.zeros(3, 5)), 0.1) < 1


@pytest.mark.parametrize(
    ("space", "target"),
    [
        (spaces.Box(-1, 1, (6,)), 0.3),
        (spaces.Box(-1, 1, (2, 2)), 0.2),
        (spaces.Discrete(7), 0.25),
        (spaces.MultiDiscrete([2, 3, 4]), 0.75),
        (spaces.MultiBinary(2), 0.5),
    ],
)
def test_the_target_adds_up_over_actions(space, target):
    assert default_target_kl(space) == pytest.approx(target)
