"""One gradient step of limited KL, on functions whose steps and derivatives are known in closed form."""

import pytest
import torch as th

from sb3_bomrl.core.gradient_step import MAX_HALVINGS, limited_gradient_step
from sb3_bomrl.core.inner_solvers import InnerStatus, InnerValue
from sb3_bomrl.core.params import require_grad

SLOPE = th.tensor([[3.0, 4.0], [0.3, 0.4], [30.0, 40.0]], dtype=th.double)
START = {"x": th.tensor([[1.0, 2.0], [-1.0, 0.0], [0.5, 0.5]], dtype=th.double)}


def objective_from(start, slope=SLOPE, wall=float("inf")):
    """F = −⟨slope, x⟩ + Σx⁴/4 with KL = ½‖x − start‖²; infinite beyond a wall."""

    def objective(params):
        x, fixed = params["x"], start["x"].detach()
        value = -(slope * x).sum(1) + x.pow(4).sum(1) / 4
        kl = 0.5 * (x - fixed).square().sum(1)
        return InnerValue(th.where(kl.detach() > wall, float("inf"), value), kl, kl.detach())

    return objective


def halvings(max_kl, step_size):
    """Per task, by the closed form of gradient and KL."""
    lengths = step_size * (SLOPE - START["x"] ** 3).norm(dim=1)
    return [next(n for n in range(99) if 0.5 * (float(length) / 2**n) ** 2 <= max_kl) for length in lengths]


@pytest.mark.parametrize("max_kl", [0.03, 1.0, float("inf")])
def test_every_task_halves_its_own_step_until_the_kl_is_within_the_limit(max_kl):
    step_size, numbers = 0.5, halvings(max_kl, 0.5)
    got = limited_gradient_step(objective_from(START), START, step_size, max_kl)
    factors = th.tensor([2.0**-n for n in numbers], dtype=th.double)[:, None]
    th.testing.assert_close(got.params["x"], START["x"] + step_size * factors * (SLOPE - START["x"] ** 3))
    assert bool((got.kl <= max_kl).all())
    assert got.status.tolist() == [InnerStatus.KL_LIMIT if n else InnerStatus.MAX_STEPS for n in numbers]
    assert got.n_steps.tolist() == [1, 1, 1]
    if max_kl < 2:
        assert len(set(numbers)) == 3
        alone = [
            limited_gradient_step(objective_from(one, SLOPE[i : i + 1]), one, step_size, max_kl).params["x"]
            for i, one in enumerate({"x": START["x"][i : i + 1]} for i in range(3))
        ]
        assert th.equal(got.params["x"], th.cat(alone))


def test_the_derivative_is_that_of_the_step_that_was_taken():
    phi, max_kl, eps = require_grad(START), 0.03, 1e-6
    got = limited_gradient_step(objective_from(phi), phi, 0.5, max_kl, differentiable=True)
    (slope,) = th.autograd.grad(got.params["x"].sum(), phi["x"])

    def moved(change):
        start = {"x": START["x"] + change}
        return limited_gradient_step(objective_from(start), start, 0.5, max_kl).params["x"].sum(1)

    for axis in (0, 1):
        unit = th.eye(2, dtype=th.double)[axis]
        th.testing.assert_close(slope[:, axis], (moved(eps * unit) - moved(-eps * unit)) / (2 * eps), rtol=1e-7, atol=0)
    factors = th.tensor([2.0**-n for n in halvings(max_kl, 0.5)], dtype=th.double)[:, None]
    th.testing.assert_close(slope, 1 - 0.5 * factors * 3 * START["x"] ** 2)


def test_a_step_to_an_objective_that_is_not_finite_is_halved_too():
    got = limited_gradient_step(objective_from(START, wall=0.5), START, 0.5, float("inf"))
    assert bool(got.objective.isfinite().all())
    assert got.status.tolist() == [InnerStatus.KL_LIMIT, InnerStatus.MAX_STEPS, InnerStatus.KL_LIMIT]


def test_without_a_step_that_is_near_enough_a_task_stays():
    got = limited_gradient_step(objective_from(START), START, 0.5, 1e-6 * 4.0**-MAX_HALVINGS)
    assert th.equal(got.params["x"], START["x"])
    assert got.status.tolist() == [InnerStatus.NON_FINITE] * 3
    assert got.n_steps.tolist() == [0, 0, 0]


def test_a_gradient_that_is_not_finite_moves_its_own_task_alone():
    slope = SLOPE.clone()
    slope[1] = float("nan")
    got = limited_gradient_step(objective_from(START, slope), START, 0.5, float("inf"))
    assert th.equal(got.params["x"][1], START["x"][1])
    assert got.status.tolist() == [InnerStatus.MAX_STEPS, InnerStatus.NON_FINITE, InnerStatus.MAX_STEPS]
    assert not got.objective[1].isfinite()
