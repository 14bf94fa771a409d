"""The many-step solver against torch.optim, Newton's method, finite differences, and its own limits."""

import copy

import pytest
import torch as th

from sb3_bomrl.core.inner_solvers import InnerSolver, InnerStatus, InnerValue, natural_gradient, solve_inner
from sb3_bomrl.core.params import flatten, require_grad, unflatten
from sb3_bomrl.types import Params

N_TASKS = 3
OPTIMISERS = {"sgd": th.optim.SGD, "adam": th.optim.Adam, "rmsprop": th.optim.RMSprop}


def draw(seed: int, *shape: int) -> th.Tensor:
    return th.randn(*shape, generator=th.Generator().manual_seed(seed), dtype=th.float64)


def start(n_tasks: int = N_TASKS) -> Params:
    return {"weight": 0.3 * draw(0, N_TASKS, 2, 3)[:n_tasks], "bias": 0.3 * draw(1, N_TASKS, 2)[:n_tasks]}


INPUTS, TARGETS = draw(2, N_TASKS, 12, 3), draw(3, N_TASKS, 12, 2)


def regression(params: Params, tasks: slice = slice(None)) -> InnerValue:
    """Smooth, not quadratic; the second term plays the distance, half of it the divergence."""
    out = th.tanh(INPUTS[tasks] @ params["weight"].mT + params["bias"][:, None])
    distance = (flatten(params) - flatten(start())[tasks]).square().sum(1)
    fit = (out - TARGETS[tasks]).square().mean((1, 2))
    return InnerValue(fit + 0.01 * distance, distance, 0.5 * distance.detach())


def free(**changes) -> InnerSolver:
    return InnerSolver("adam", max_kl=float("inf"), gradient_tolerance=0.0)._replace(**changes)


@pytest.mark.parametrize("method", list(OPTIMISERS))
@pytest.mark.parametrize("n_steps", [1, 2, 3, 30])
def test_every_step_is_that_of_one_torch_optimiser_per_task(method, n_steps):
    got = solve_inner(regression, start(), free(method=method, learning_rate=0.02, n_steps=n_steps))
    for task in range(N_TASKS):
        own = slice(task, task + 1)
        leaves = {k: v[own].clone().requires_grad_() for k, v in start().items()}
        optimiser = OPTIMISERS[method](list(leaves.values()), lr=0.02)
        for _ in range(n_steps):
            optimiser.zero_grad()
            regression(leaves, own).objective.sum().backward()
            optimiser.step()
        for name, leaf in leaves.items():
            assert th.allclose(got.params[name][own], leaf, rtol=1e-9, atol=1e-12)
    assert got.n_steps.tolist() == [n_steps] * N_TASKS
    assert got.status.tolist() == [InnerStatus.MAX_STEPS] * N_TASKS


@pytest.mark.parametrize("method", list(OPTIMISERS))
def test_the_report_is_that_of_the_returned_parameters(method):
    init = start()
    got = solve_inner(regression, init, free(method=method, learning_rate=0.05, n_steps=7))
    theta = require_grad(got.params)
    value = regression(theta)
    slope = flatten(dict(zip(theta, th.autograd.grad(value.objective.sum(), list(theta.values())), strict=True)))
    for reported, expected in (
        (got.objective, value.objective),
        (got.distance, value.distance),
        (got.kl, value.kl),
        (got.gradient_norm, slope.norm(dim=1)),
    ):
        assert th.allclose(reported, expected)
        assert not reported.requires_grad
    assert not any(v.requires_grad for v in got.params.values())
    assert all(th.equal(init[name], value) for name, value in start().items())


def quadratic_metric(params: Params) -> th.Tensor:
    """½ (θ − θ₀)ᵀ H (θ − θ₀) with θ₀ held fixed at θ: gradient 0, Hessian H."""
    flat = flatten(params)
    step = flat - flat.detach()
    return 0.5 * th.einsum("ni,nij,nj->n", step, curvature(), step)


def curvature() -> th.Tensor:
    root = draw(5, N_TASKS, 8, 8)
    return root @ root.mT + th.eye(8, dtype=th.float64)


def quadratic(params: Params) -> InnerValue:
    gap = flatten(params) - draw(6, N_TASKS, 8)
    objective = 0.5 * th.einsum("ni,nij,nj->n", gap, curvature(), gap)
    return InnerValue(objective, objective.detach(), objective.detach() * 0)


def test_natural_gradient_is_the_inverse_curvature_times_the_gradient():
    gradient = unflatten(draw(7, N_TASKS, 8), start())
    for damping in (0.0, 0.5):
        got = flatten(natural_gradient(gradient, start(), quadratic_metric, 60, damping))
        expected = th.linalg.solve(curvature() + damping * th.eye(8, dtype=th.float64), flatten(gradient))
        assert th.allclose(got, expected, rtol=1e-6)


def test_one_natural_gradient_step_on_a_quadratic_is_newtons():
    solver = free(method="natural_gradient", learning_rate=1.0, n_steps=1, cg_max_steps=60)
    got = solve_inner(quadratic, start(), solver, quadratic_metric)
    assert th.allclose(flatten(got.params), draw(6, N_TASKS, 8), atol=1e-8)
    half = solve_inner(quadratic, start(), solver._replace(learning_rate=0.5), quadratic_metric)
    assert th.allclose(flatten(half.params), 0.5 * (flatten(start()) + draw(6, N_TASKS, 8)), atol=1e-8)


def with_halved_steps(method: str, task: int, n_tries: int, limit: float) -> tuple[Params, int, float]:
    """One task by torch's optimiser, which goes back to before a step beyond the limit and halves its rate."""
    own = slice(task, task + 1)
    leaves = {k: v[own].clone().requires_grad_() for k, v in start().items()}
    optimiser, n_steps = OPTIMISERS[method](list(leaves.values()), lr=0.05), 0
    for _ in range(n_tries):
        before = {k: v.detach().clone() for k, v in leaves.items()}, copy.deepcopy(optimiser.state_dict())
        optimiser.zero_grad()
        regression(leaves, own).objective.sum().backward()
        optimiser.step()
        n_steps += 1
        if regression(leaves, own).kl > limit:
            for name, leaf in leaves.items():
                leaf.data.copy_(before[0][name])
            optimiser.load_state_dict(before[1])
            optimiser.param_groups[0]["lr"] /= 2
            n_steps -= 1
    return leaves, n_steps, optimiser.param_groups[0]["lr"] / 0.05


@pytest.mark.parametrize("method", list(OPTIMISERS))
def test_a_step_beyond_the_kl_limit_is_undone_and_halved(method):
    n_tries = 25
    far = solve_inner(regression, start(), free(method=method, learning_rate=0.05, n_steps=n_tries)).kl
    limit = float(far.sort().values[:2].mean())  # the nearest task never leaves
    got = solve_inner(regression, start(), free(method=method, learning_rate=0.05, n_steps=n_tries, max_kl=limit))
    assert (got.kl <= limit).all()
    halved = []
    for task in range(N_TASKS):
        params, n_steps, scale = with_halved_steps(method, task, n_tries, limit)
        halved.append(scale < 1)
        assert got.n_steps[task] == n_steps
        for name, value in params.items():
            assert th.allclose(got.params[name][task], value[0], rtol=1e-9)
    assert (got.status == InnerStatus.KL_LIMIT).tolist() == halved
    assert sum(halved) == 2
    assert (got.status[~th.tensor(halved)] == InnerStatus.MAX_STEPS).all()
    assert got.n_steps.min() < n_tries - 1  # more than the last step of some task


def test_a_natural_gradient_step_beyond_the_kl_limit_is_halved():
    """On a quadratic, a step is Newton's times the step size: the first try goes all the way, the second half of it."""
    gap = draw(6, N_TASKS, 8) - flatten(start())

    def objective(theta: Params) -> InnerValue:
        moved = (flatten(theta) - flatten(start())).detach().norm(dim=1) / gap.norm(dim=1)
        return quadratic(theta)._replace(kl=moved)

    solver = InnerSolver("natural_gradient", 1.0, 3, max_kl=0.8, cg_max_steps=60)
    got = solve_inner(objective, start(), solver, quadratic_metric)
    assert th.allclose(flatten(got.params), flatten(start()) + 0.75 * gap, atol=1e-8)
    assert got.n_steps.tolist() == [2] * N_TASKS
    assert got.status.tolist() == [InnerStatus.KL_LIMIT] * N_TASKS


def test_all_tasks_may_stay_where_they_start():
    got = solve_inner(regression, start(), InnerSolver("adam", learning_rate=0.1, n_steps=3, max_kl=1e-9))
    assert got.status.tolist() == [InnerStatus.KL_LIMIT] * N_TASKS
    assert got.n_steps.tolist() == [0] * N_TASKS
    assert all(th.equal(got.params[k], v) for k, v in start().items())
    assert th.allclose(got.objective, regression(start()).objective)
    assert (got.kl == 0).all()


def test_a_task_that_starts_beyond_the_kl_limit_stays_there():
    def objective(params: Params) -> InnerValue:
        return regression(params)._replace(kl=th.tensor([0.0, 2.0, 0.0], dtype=th.float64))

    got = solve_inner(objective, start(), InnerSolver("adam", n_steps=5, max_kl=1.0, gradient_tolerance=0.0))
    assert got.status.tolist() == [InnerStatus.MAX_STEPS, InnerStatus.KL_LIMIT, InnerStatus.MAX_STEPS]
    assert got.n_steps.tolist() == [5, 0, 5]
    assert th.equal(flatten(got.params)[1], flatten(start())[1])


def test_a_task_stops_when_its_gradient_is_small():
    solver = free(method="sgd", learning_rate=0.05, n_steps=2000, gradient_tolerance=1e-3)
    got = solve_inner(quadratic, start(), solver)
    assert got.status.tolist() == [InnerStatus.GRADIENT_TOLERANCE] * N_TASKS
    largest = 1e-3 * solve_inner(quadratic, start(), free(method="sgd", n_steps=1, learning_rate=1e-12)).gradient_norm
    assert (got.gradient_norm <= largest).all()
    assert len(set(got.n_steps.tolist())) == N_TASKS
    for task in range(N_TASKS):
        n = int(got.n_steps[task])
        before = solve_inner(quadratic, start(), free(method="sgd", learning_rate=0.05, n_steps=n - 1))
        assert before.gradient_norm[task] > largest[task]


def walled(params: Params) -> InnerValue:
    """Task 1 has a wall, beyond which everything is nan."""
    value = regression(params)
    wall = th.where(value.distance.detach() > 0.3, float("nan"), 1.0)
    wall = th.where(th.arange(N_TASKS) == 1, wall, 1.0)
    return InnerValue(value.objective * wall, value.distance, value.kl)


@pytest.mark.parametrize("differentiable", [False, True])
def test_a_task_keeps_its_last_finite_iterate(differentiable):
    solver = free(learning_rate=0.05, n_steps=20)
    init = require_grad(start())
    got = solve_inner(walled, init, solver, differentiable=differentiable)
    assert got.status.tolist() == [InnerStatus.MAX_STEPS, InnerStatus.NON_FINITE, InnerStatus.MAX_STEPS]
    n = int(got.n_steps[1])
    assert 0 < n < 20
    unlimited = solve_inner(regression, start(), solver)
    early = solve_inner(regression, start(), solver._replace(n_steps=n))
    for name, value in got.params.items():
        assert value.isfinite().all()
        assert th.allclose(value[[0, 2]], unlimited.params[name][[0, 2]])
        assert th.allclose(value[1], early.params[name][1])
    assert got.objective.isfinite().all()
    assert got.gradient_norm.isfinite().all()
    if differentiable:
        total = flatten(got.params).sum()
        through = flatten(dict(zip(init, th.autograd.grad(total, list(init.values())), strict=True)))
        assert through.isfinite().all()
        fresh = require_grad(start())
        same = solve_inner(regression, fresh, solver._replace(n_steps=n), differentiable=True)
        total = flatten(same.params)[1].sum()
        expected = flatten(dict(zip(fresh, th.autograd.grad(total, list(fresh.values())), strict=True)))
        assert th.allclose(through[1], expected[1])


def test_a_start_that_is_not_finite_is_reported_and_returned():
    bad = start()
    bad["bias"][2, 0] = float("nan")
    got = solve_inner(regression, bad, free(n_steps=5))
    assert got.status.tolist() == [InnerStatus.MAX_STEPS, InnerStatus.MAX_STEPS, InnerStatus.NON_FINITE]
    assert got.n_steps.tolist() == [5, 5, 0]
    assert th.equal(got.params["weight"][2], start()["weight"][2])
    good = solve_inner(regression, start(), free(n_steps=5))
    assert th.equal(got.params["weight"][:2], good.params["weight"][:2])


def test_a_value_that_is_not_a_number_is_no_stationary_point():
    """Objective nan with gradient 0, and a divergence of nan."""

    def constant(params: Params) -> InnerValue:
        value = regression(params)
        return value._replace(objective=th.where(value.kl > 0, float("nan"), value.objective))

    got = solve_inner(constant, start(), free(n_steps=3))
    assert got.status.tolist() == [InnerStatus.NON_FINITE] * N_TASKS

    def no_divergence(params: Params) -> InnerValue:
        value = regression(params)
        return value._replace(kl=th.where(value.kl > 0, float("nan"), value.kl))

    got = solve_inner(no_divergence, start(), InnerSolver("adam", n_steps=3, gradient_tolerance=0.0))
    assert got.status.tolist() == [InnerStatus.KL_LIMIT] * N_TASKS
    assert got.n_steps.tolist() == [0] * N_TASKS


@pytest.mark.parametrize("method", list(OPTIMISERS))
@pytest.mark.parametrize("max_kl", [float("inf"), 0.02])
def test_derivative_through_the_steps_is_finite_differences(method, max_kl):
    rate = 0.05 if method == "sgd" else 0.02
    solver = free(method=method, learning_rate=rate, n_steps=6, max_kl=max_kl)
    cotangent, direction = draw(11, N_TASKS, 8), draw(12, N_TASKS, 8)

    def solve(init: Params, differentiable: bool):
        centre = init  # the objective depends on the first iterate as well, as D(φ, θ) does

        def objective(theta: Params) -> InnerValue:
            distance = (flatten(theta) - flatten(centre)).square().sum(1)
            return InnerValue(regression(theta).objective + 0.3 * distance, distance, distance.detach())

        return solve_inner(objective, init, solver, differentiable=differentiable)

    init = require_grad(start())
    result = solve(init, True)
    total = (flatten(result.params) * cotangent).sum()
    got = flatten(dict(zip(init, th.autograd.grad(total, list(init.values())), strict=True)))
    if max_kl < 1:
        assert (result.status == InnerStatus.KL_LIMIT).any()

    def shifted(size: float) -> th.Tensor:
        moved = solve(unflatten(flatten(start()) + size * direction, start()), False)
        assert th.equal(moved.n_steps, result.n_steps)
        return (flatten(moved.params) * cotangent).sum(1)

    numeric = (shifted(1e-6) - shifted(-1e-6)) / 2e-6
    assert th.allclose((got * direction).sum(1), numeric, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("in_the_graph", [True, False])
def test_parameters_without_influence_stay_and_have_finite_derivatives(in_the_graph):
    init = require_grad({**start(), "unused": th.ones(N_TASKS, 2, dtype=th.float64)})

    def objective(theta: Params) -> InnerValue:
        value = regression({k: theta[k] for k in ("weight", "bias")})
        nothing = 0.0 * theta["unused"].square().sum(1)
        return value._replace(objective=value.objective + nothing) if in_the_graph else value

    for method in OPTIMISERS:
        got = solve_inner(objective, init, free(method=method, n_steps=3), differentiable=True)
        assert th.equal(got.params["unused"], init["unused"])
        through = th.autograd.grad(sum(v.sum() for v in got.params.values()), list(init.values()))
        assert all(g.isfinite().all() for g in through)
        assert th.equal(through[2], th.ones(N_TASKS, 2, dtype=th.float64))


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"method must be one of \('lbfgs', .*got 'newton'"):
        solve_inner(regression, start(), InnerSolver("newton"))
    with pytest.raises(ValueError, match="needs a metric"):
        solve_inner(regression, start(), InnerSolver("natural_gradient"))
    with pytest.raises(ValueError, match="not differentiable"):
        solve_inner(quadratic, require_grad(start()), InnerSolver("natural_gradient"), quadratic_metric, True)
