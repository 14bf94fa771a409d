"""Meta-gradients against finite differences through the lower level, and against the exact tabular solution."""

from functools import partial

import pytest
import torch as th

from sb3_bomrl.core.hypergradient import implicit_hypergradient
from sb3_bomrl.core.inner_solvers import InnerSolver
from sb3_bomrl.core.linear_solve import SolveStatus, conjugate_gradient
from sb3_bomrl.core.minimizers import kl_meta_task_minimizer, kl_task_meta_minimizer
from sb3_bomrl.core.params import flatten, grad, require_grad, unflatten
from sb3_bomrl.meta.gradients import bomrl_meta_gradient
from sb3_bomrl.meta.lower_level import LowerLevel, adapt
from sb3_bomrl.meta.policy_gradient import policy_gradient, query_surrogate
from sb3_bomrl.tabular import FiniteMDP, expected_return, policy_value, state_visitation
from sb3_bomrl.tabular.adaptation import adaptation_path
from sb3_bomrl.tabular.proximal import parameter_minimizer
from sb3_bomrl.types import Batch, Params

N_TASKS, N_SAMPLES = 2, 60
KINDS = ("gaussian", "categorical")
SEEDS = {"gaussian": 1, "categorical": 4}  # small networks with a well-conditioned Fisher matrix
DISTANCES = ("kl_meta_task", "kl_task_meta", "parameter")
SURROGATES = ("linear", "sigmoid", "clip")
# (lambda, inner solver): large enough a lambda for a minimum that is no kink of the clipped surrogate
SETTINGS = {
    "kl_meta_task": (20.0, InnerSolver("adam", 0.02, 200, float("inf"))),
    "kl_task_meta": (20.0, InnerSolver("adam", 0.02, 200, float("inf"))),
    "parameter": (3.0, InnerSolver("sgd", 0.3, 100, float("inf"))),
}
CLIP_RANGE = 0.5


def repeat(batch: Batch, n: int) -> Batch:
    """The same tasks n times over."""
    return Batch(*(x.repeat(n, *[1] * (x.dim() - 1)) for x in batch))


def newton(lower, phi, theta, n_steps):
    """From the inner solver's answer down to the stationary point, to rounding: Newton steps with |eigenvalues|."""
    for _ in range(n_steps):
        theta = require_grad(theta)
        gradient = flatten(grad(lower.loss(theta, phi).sum(), theta, create_graph=True))
        rows = [flatten(grad(column.sum(), theta, retain_graph=True)) for column in gradient.unbind(1)]
        values, vectors = th.linalg.eigh(th.stack(rows, 1))
        inverse = th.where(values.abs() > 1e-10, 1.0 / values.abs(), 0.0)  # softmax logits have null directions
        step = vectors @ (inverse[..., None] * (vectors.mT @ gradient.detach()[..., None]))
        theta = unflatten(flatten(theta).detach() - step.squeeze(-1), theta)
    return theta, gradient.detach().norm(dim=1)


CASES = [("gaussian", distance, surrogate) for distance in DISTANCES for surrogate in SURROGATES]
CASES += [("categorical", distance, "sigmoid") for distance in DISTANCES]


@pytest.mark.parametrize(("kind", "distance", "surrogate"), CASES)
def test_implicit_is_the_derivative_of_the_solved_lower_level(
    kind, distance, surrogate, make_actor, draw_params, draw_batch
):
    actor = make_actor(kind)
    phi = draw_params(actor, N_TASKS, seed=SEEDS[kind], scale=1.0)
    support, query = draw_batch(actor, phi, N_SAMPLES, 2), draw_batch(actor, draw_params(actor, N_TASKS, 3), 30, 4)
    if surrogate == "clip":  # ratios on both sides of both kinks, and none near one
        support = support._replace(log_probs=support.log_probs + 1.2 * (th.arange(N_SAMPLES) % 3 - 1))
    reg_coef, solver = SETTINGS[distance]
    reg_coef = 3.0 * reg_coef if surrogate == "clip" else reg_coef

    def lower_level(n):
        return LowerLevel(actor, repeat(support, n), distance, surrogate, reg_coef, clip_range=CLIP_RANGE)

    adapted = adapt(lower_level(1), phi, solver)
    assert adapted.gradient_norm.max() < 1e-2
    theta, norm = newton(lower_level(1), phi, adapted.params, 12)
    assert norm.max() < 1e-11
    result = bomrl_meta_gradient(lower_level(1), phi, theta, query, "implicit", cg_max_steps=200)
    assert result.solve.status.tolist() == [SolveStatus.CONVERGED] * N_TASKS

    # all perturbations, +e_i and -e_i of every parameter, are one batch of lower levels
    eps, n_params = 1e-5, flatten(phi).shape[1]
    steps = th.cat([eps * th.eye(n_params), -eps * th.eye(n_params)]).double().repeat_interleave(N_TASKS, 0)
    n = 2 * n_params
    start = {name: value.repeat(n, *[1] * (value.dim() - 1)) for name, value in theta.items()}
    moved = unflatten(flatten(phi).repeat(n, 1) + steps, start)
    solution, norm = newton(lower_level(n), moved, start, 3)
    assert norm.max() < 1e-11
    returns = query_surrogate(actor, repeat(query, n), solution).detach().reshape(2, n_params, N_TASKS)
    expected = ((returns[0] - returns[1]) / (2 * eps)).T
    got = flatten({k: v[None] for k, v in result.gradient.items()})[0]
    assert (got - expected.mean(0)).norm() <= 1e-4 * expected.mean(0).norm()
    assert th.allclose(result.task_norms, expected.norm(dim=1), rtol=1e-4)


def setting(make_actor, draw_params, draw_batch, kind="gaussian", distance="kl_meta_task", n_steps=5, reg_coef=2.0):
    """Lower level, φ, query data and a short inner solver."""
    actor = make_actor(kind)
    phi = draw_params(actor, N_TASKS, 1)
    support, query = draw_batch(actor, phi, N_SAMPLES, 2), draw_batch(actor, draw_params(actor, N_TASKS, 3), 30, 4)
    lower = LowerLevel(actor, support, distance, "sigmoid", reg_coef)
    return lower, phi, query, InnerSolver("sgd", 0.2, n_steps, float("inf"))


UNROLLED = [("gaussian", "kl_meta_task"), ("categorical", "kl_task_meta"), ("gaussian", "parameter")]


@pytest.mark.parametrize("method", ["sgd", "adam", "rmsprop"])
@pytest.mark.parametrize(("kind", "distance"), UNROLLED)
def test_unrolled_is_the_derivative_of_all_steps(kind, distance, method, make_actor, draw_params, draw_batch):
    lower, phi, query, solver = setting(make_actor, draw_params, draw_batch, kind, distance)
    solver = solver._replace(method=method, learning_rate=0.05)
    adapted = adapt(lower, phi, solver)
    result = bomrl_meta_gradient(lower, phi, adapted.params, query, "unrolled", solver)
    assert result.solve is None

    direction, eps = draw_params(lower.actor, 1, 9), 1e-5

    def meta_objective(step: float) -> th.Tensor:
        moved = {name: value + step * direction[name] for name, value in phi.items()}
        solved = adapt(lower, moved, solver)
        return query_surrogate(lower.actor, query, solved.params).mean()

    expected = (meta_objective(eps) - meta_objective(-eps)) / (2 * eps)
    got = sum((result.gradient[name] * direction[name][0]).sum() for name in phi)
    assert float(got) == pytest.approx(float(expected), rel=1e-5)


def test_unrolled_is_autograd_through_steps_written_out(make_actor, draw_params, draw_batch):
    lower, phi, query, solver = setting(make_actor, draw_params, draw_batch, n_steps=3)
    adapted = adapt(lower, phi, solver)
    got = bomrl_meta_gradient(lower, phi, adapted.params, query, "unrolled", solver).gradient

    leaves = require_grad(phi)
    theta, data = dict(leaves), lower.batch
    for _ in range(3):
        new, old = lower.actor(theta, data.observations), lower.actor(leaves, data.observations)
        ratio = (new.log_prob(data.actions) - data.log_probs).exp()
        kl = th.distributions.kl_divergence(old, new)
        gain = 2 * th.sigmoid(2 * (ratio - 1)) * data.advantages / 2.0
        loss = (data.weights * (kl - gain)).sum()
        slopes = th.autograd.grad(loss, list(theta.values()), create_graph=True)
        theta = {name: value - 0.2 * slope for (name, value), slope in zip(theta.items(), slopes, strict=True)}
    query_surrogate(lower.actor, query, theta).mean().backward()
    for name, leaf in leaves.items():
        assert th.allclose(got[name], leaf.grad.sum(0), rtol=1e-9, atol=1e-12)


def test_first_order_is_the_gradient_at_the_adapted_policy(make_actor, draw_params, draw_batch):
    lower, phi, query, solver = setting(make_actor, draw_params, draw_batch)
    adapted = adapt(lower, phi, solver).params
    result = bomrl_meta_gradient(lower, phi, adapted, query, "first_order", solver)
    leaves = require_grad(adapted)
    query_surrogate(lower.actor, query, leaves).mean().backward()
    for name, leaf in leaves.items():
        assert th.allclose(result.gradient[name], leaf.grad.sum(0), rtol=1e-12)
    norms = flatten({name: N_TASKS * leaf.grad for name, leaf in leaves.items()}).norm(dim=1)
    assert th.allclose(result.task_norms, norms)


@pytest.mark.parametrize("mode", ["implicit", "unrolled", "first_order"])
def test_a_batch_of_tasks_gives_the_mean_of_the_tasks(mode, make_actor, draw_params, draw_batch):
    lower, phi, query, solver = setting(make_actor, draw_params, draw_batch, "categorical", reg_coef=20.0)
    adapted = adapt(lower, phi, solver).params
    whole = bomrl_meta_gradient(lower, phi, adapted, query, mode, solver)
    alone = []
    for task in range(N_TASKS):
        own = slice(task, task + 1)
        pick = lambda x, own=own: type(x)(*(part[own] for part in x))  # noqa: E731
        part = LowerLevel(lower.actor, pick(lower.batch), "kl_meta_task", "sigmoid", 20.0)
        params = [{name: value[own] for name, value in p.items()} for p in (phi, adapted)]
        alone.append(bomrl_meta_gradient(part, *params, pick(query), mode, solver))
    for name, value in whole.gradient.items():
        mean = th.stack([result.gradient[name] for result in alone]).mean(0)
        assert th.allclose(value, mean, rtol=1e-6, atol=1e-9)
    assert th.allclose(whole.task_norms, th.cat([result.task_norms for result in alone]), rtol=1e-6)


def test_negative_curvature_is_reported_and_the_result_finite(make_actor, draw_params, draw_batch):
    """Proposition 3 fails for small λ: ∇²F is indefinite, as the dense Hessian shows."""
    lower, phi, query, solver = setting(make_actor, draw_params, draw_batch, distance="parameter", reg_coef=0.01)
    theta = require_grad(phi)
    gradient = flatten(grad(lower.loss(theta, phi).sum(), theta, create_graph=True))
    hessian = th.stack([flatten(grad(g.sum(), theta, retain_graph=True)) for g in gradient.unbind(1)], 1)
    assert float(th.linalg.eigvalsh(hessian)[:, 0].max()) < -1.0
    result = bomrl_meta_gradient(lower, phi, phi, query, "implicit", solver, cg_max_steps=50)
    assert result.solve.status.tolist() == [SolveStatus.NEGATIVE_CURVATURE] * N_TASKS
    assert all(bool(value.isfinite().all()) for value in result.gradient.values())
    safe = LowerLevel(lower.actor, lower.batch, "parameter", "sigmoid", 100.0)
    result = bomrl_meta_gradient(safe, phi, phi, query, "implicit", solver, cg_max_steps=50)
    assert result.solve.status.tolist() == [SolveStatus.CONVERGED] * N_TASKS


def test_an_unknown_mode_is_refused(make_actor, draw_params, draw_batch):
    lower, phi, query, solver = setting(make_actor, draw_params, draw_batch)
    with pytest.raises(ValueError, match=r"hypergradient must be one of .* got 'exact'"):
        bomrl_meta_gradient(lower, phi, phi, query, "exact", solver)


def exact_batch(actor, mdp: FiniteMDP, policy: th.Tensor) -> Batch:
    """Every state and action once, weighted by ν(s) π(a∣s), with exact advantages; ``policy`` is (n_tasks, S, A)."""
    n_tasks, n_states, n_actions = policy.shape
    pairs = th.cartesian_prod(th.arange(n_states), th.arange(n_actions)).expand(n_tasks, -1, -1)
    values, q_values = policy_value(mdp, policy)
    visitation = state_visitation(mdp, policy)
    return Batch(
        actor.preprocess(pairs[..., 0]),
        pairs[..., 1],
        policy.log().flatten(1),
        (q_values - values[..., None]).flatten(1),
        (visitation[..., None] * policy).flatten(1),
    )


def as_params(logits: th.Tensor) -> Params:
    return {"action_net.weight": logits.detach().mT}


@pytest.mark.parametrize("distance", DISTANCES)
def test_with_exact_weights_the_core_is_the_exact_algorithm(distance, make_table):
    mdp, reg_coef, eps = FiniteMDP.random(4, 3, 0.8, seed=5, n_tasks=N_TASKS), 0.3, 1e-5
    phi = th.randn(4, 3, generator=th.Generator().manual_seed(0), dtype=th.double).requires_grad_()
    path = adaptation_path(mdp, phi, distance, reg_coef, sampling_term=False)
    adapted = path[-1].softmax(-1).detach()
    exact = th.autograd.grad(expected_return(mdp, path[-1].softmax(-1)).mean(), phi)[0]

    # central differences with the data, Q and ν, held where they are
    policy = phi.detach().softmax(-1).expand(N_TASKS, -1, -1)
    q_values, visitation = policy_value(mdp, policy)[1], state_visitation(mdp, policy)

    def meta_objective(logits: th.Tensor) -> th.Tensor:
        if distance == "kl_meta_task":
            moved = kl_meta_task_minimizer(logits.softmax(-1), q_values, reg_coef)
        elif distance == "kl_task_meta":
            moved = kl_task_meta_minimizer(logits.log_softmax(-1), q_values, reg_coef).softmax(-1)
        else:
            moved = parameter_minimizer(logits.expand(N_TASKS, -1, -1), q_values, visitation / reg_coef).softmax(-1)
        return expected_return(mdp, moved).mean()

    steps = eps * th.eye(12).double().reshape(12, 4, 3)
    differences = [meta_objective(phi.detach() + s) - meta_objective(phi.detach() - s) for s in steps]
    differences = (th.stack(differences) / (2 * eps)).reshape(4, 3)

    actor = make_table(4, 3)
    lower = LowerLevel(actor, exact_batch(actor, mdp, policy), distance, "linear", reg_coef)
    theta, phi_params = as_params(path[-1]), as_params(phi.expand(N_TASKS, -1, -1))
    cotangent = policy_gradient(actor, exact_batch(actor, mdp, adapted), theta)
    solve = partial(conjugate_gradient, max_iterations=200, tolerance=1e-13)
    result, _ = implicit_hypergradient(lower.loss, theta, phi_params, cotangent, solve)
    got = result["action_net.weight"].mean(0).T / (1 - mdp.gamma)  # ν is normalised
    assert th.allclose(got, differences, rtol=1e-5, atol=1e-7)
    assert float((got - exact).abs().max()) <= 1e-8
