"""L-BFGS for many problems at once, against closed forms and SciPy."""

import pytest
import torch as th
from scipy.optimize import minimize as scipy_minimize

from sb3_bomrl.core.lbfgs import CurvaturePairs, minimize

N_TASKS, DIM = 4, 6


def spd(seed: int) -> tuple[th.Tensor, th.Tensor]:
    """Symmetric positive definite matrices of very different scales, and vectors of the same."""
    generator = th.Generator().manual_seed(seed)
    a = th.randn(N_TASKS, DIM, DIM, generator=generator, dtype=th.float64)
    scale = th.tensor([1e-6, 1.0, 30.0, 1e8], dtype=th.float64)[:, None, None]
    b = th.randn(N_TASKS, DIM, generator=generator, dtype=th.float64)
    return scale * (a @ a.mT + 0.1 * th.eye(DIM, dtype=th.float64)), scale[:, 0] * b


def start() -> dict[str, th.Tensor]:
    generator = th.Generator().manual_seed(9)
    return {
        "w": th.randn(N_TASKS, 2, 2, generator=generator, dtype=th.float64),
        "b": th.randn(N_TASKS, 2, generator=generator, dtype=th.float64),
    }


def flat(params) -> th.Tensor:
    return th.cat([params["w"].flatten(1), params["b"]], 1)


def always(others):
    return th.ones_like(others[0], dtype=th.bool)


def test_quadratics_of_any_scale_end_at_their_minimum():
    a, b = spd(0)

    def quadratic(params):
        x = flat(params)
        value = 0.5 * (x * (a @ x[..., None])[..., 0]).sum(1) - (b * x).sum(1)
        return value, (value.detach(),)

    end = minimize(quadratic, start(), 200, 1e-6, always)
    exact = th.linalg.solve(a, b)
    assert end.converged.all()
    assert th.allclose(end.point.vector, exact, atol=1e-4)
    assert th.allclose(end.point.objective, 0.5 * -(b * exact).sum(1))
    assert not end.limited.any()
    assert end.n_steps.max() < 60


def test_rosenbrock_ends_where_scipys_does():
    def rosenbrock(params):
        x = flat(params)
        value = (100 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1 - x[:, :-1]) ** 2).sum(1)
        return value, (value.detach(),)

    end = minimize(rosenbrock, start(), 500, 1e-9, always)
    for task in range(N_TASKS):

        def one(x):
            t = th.tensor(x, requires_grad=True)
            value = (100 * (t[1:] - t[:-1] ** 2) ** 2 + (1 - t[:-1]) ** 2).sum()
            value.backward()
            return float(value.detach()), t.grad.numpy()

        found = scipy_minimize(one, flat(start())[task].numpy(), jac=True, method="L-BFGS-B", tol=1e-14)
        assert th.allclose(end.point.vector[task], th.as_tensor(found.x), atol=1e-4)
    assert end.converged.all()


def test_the_direction_is_that_of_the_bfgs_matrix():
    a, _ = spd(1)
    scale = th.tensor([0.5, 1.0, 2.0, 3.0], dtype=th.float64)
    pairs = CurvaturePairs(scale)
    generator = th.Generator().manual_seed(3)
    steps = [th.randn(N_TASKS, DIM, generator=generator, dtype=th.float64) for _ in range(3)]
    everywhere = th.ones(N_TASKS, dtype=th.bool)
    for s in steps:
        pairs.add(s, (a @ s[..., None])[..., 0], everywhere)
    g = th.randn(N_TASKS, DIM, generator=generator, dtype=th.float64)
    got = pairs.direction(g)
    for task in range(N_TASKS):
        y = [a[task] @ s[task] for s in steps]
        h = (steps[-1][task] @ y[-1]) / (y[-1] @ y[-1]) * th.eye(DIM, dtype=th.float64)
        for s, change in zip((s[task] for s in steps), y, strict=True):
            rho = 1 / (s @ change)
            left = th.eye(DIM, dtype=th.float64) - rho * th.outer(s, change)
            h = left @ h @ left.T + rho * th.outer(s, s)
        assert th.allclose(got[task], -h @ g[task], rtol=1e-8)


def test_every_task_takes_the_steps_of_a_task_alone():
    a, b = spd(2)

    def quadratic_of(tasks):
        def quadratic(params):
            x = flat(params)
            value = 0.5 * (x * (a[tasks] @ x[..., None])[..., 0]).sum(1) - (b[tasks] * x).sum(1) + x.cos().sum(1)
            return value, (value.detach(),)

        return quadratic

    together = minimize(quadratic_of(slice(None)), start(), 25, 1e-6, always)
    for task in range(N_TASKS):
        own = {name: value[task : task + 1] for name, value in start().items()}
        alone = minimize(quadratic_of(slice(task, task + 1)), own, 25, 1e-6, always)
        assert th.allclose(alone.point.vector[0], together.point.vector[task], rtol=1e-9)
        assert alone.n_steps[0] == together.n_steps[task]


def test_a_point_that_is_not_allowed_is_not_stepped_to():
    a, b = spd(0)
    first = flat(start())

    def quadratic(params):
        x = flat(params)
        value = 0.5 * (x * (a @ x[..., None])[..., 0]).sum(1) - (b * x).sum(1)
        return value, (value.detach(), (x - first).norm(dim=1).detach())

    end = minimize(quadratic, start(), 40, 1e-9, lambda others: others[1] <= 0.5)
    assert (end.point.others[1] <= 0.5).all()
    assert end.limited.any()
    assert (end.point.objective < quadratic(start())[0]).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_wall_that_is_not_finite_is_not_stepped_to(bad):
    def walled(params):
        x = flat(params)
        value = (x**2).sum(1) - 10 * x.sum(1)
        value = th.where((x > 3).any(1), bad, value)
        return value, (value.detach(),)

    end = minimize(walled, {"w": th.zeros(1, 2, 2), "b": th.zeros(1, 2)}, 60, 1e-6, always)
    assert end.point.objective.isfinite().all()
    assert (end.point.vector > 2).all()
    assert not end.converged.any()


def test_where_nothing_moves():
    def constant(params):
        value = 0 * flat(params).sum(1)
        return value, (value.detach(),)

    end = minimize(constant, start(), 5, 0.01, always)
    assert th.equal(end.point.vector, flat(start()))
    assert end.converged.all()
    assert (end.n_steps == 0).all()


def test_negative_curvature_at_the_start_is_left():
    def double_well(params):
        x = flat(params)
        value = (x**4 / 4 - x**2 / 2).sum(1)
        return value, (value.detach(),)

    end = minimize(double_well, {"w": th.full((1, 2, 2), 0.01), "b": th.full((1, 2), -0.02)}, 60, 1e-6, always)
    assert th.allclose(end.point.vector.abs(), th.ones(1, 6), atol=1e-4)
