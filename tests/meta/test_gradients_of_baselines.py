"""Meta-gradients of MAML and its relatives, against steps written out, central differences and dense Hessians."""

import pytest
import torch as th

from sb3_bomrl.core.inner_solvers import InnerSolver
from sb3_bomrl.core.params import flatten, require_grad, unflatten
from sb3_bomrl.core.surrogates import get_surrogate
from sb3_bomrl.meta import batches
from sb3_bomrl.meta.gradients import (
    bomrl_meta_gradient,
    fomaml_meta_gradient,
    leave_one_out_credit,
    maml_meta_gradient,
    promp_meta_gradient,
    reptile_meta_gradient,
)
from sb3_bomrl.meta.lower_level import LowerLevel, adapt
from sb3_bomrl.meta.policy_gradient import StepSize, policy_gradient, query_surrogate
from sb3_bomrl.tabular import FiniteMDP, expected_return, policy_value, state_visitation
from sb3_bomrl.types import Batch, Rollout

N_TASKS, INNER_LR = 2, 0.3


class Problem:
    """φ, K support batches, each sampled by the policy of its step, and the query batch."""

    def __init__(self, kind, n_steps, make_actor, draw_params, draw_batch, surrogate="linear"):
        self.actor = make_actor(kind)
        self.phi = draw_params(self.actor, N_TASKS, 1, 1.0)
        self.surrogate, self.supports, self.path = surrogate, [], [self.phi]
        for number in range(n_steps):
            self.supports.append(draw_batch(self.actor, self.path[-1], 40, 10 + number))
            self.path.append(self.inner_step(self.path[-1], self.supports[-1]))
        self.query = draw_batch(self.actor, self.path[-1], 30, 4)

    def inner_step(self, params, support):
        """By the inner solver of BO-MRL, which tests of its own hold to the equations."""
        lower = LowerLevel(self.actor, support, "parameter", self.surrogate, 1.0)
        return adapt(lower, params, InnerSolver("sgd", INNER_LR, 1, float("inf"))).params

    def maml(self):
        arguments = (self.actor, self.supports, self.phi, self.path[-1], self.query, StepSize(INNER_LR), self.surrogate)
        return maml_meta_gradient(*arguments)


@pytest.fixture
def problem(make_actor, draw_params, draw_batch):
    def make(kind="gaussian", n_steps=2, surrogate="linear"):
        return Problem(kind, n_steps, make_actor, draw_params, draw_batch, surrogate)

    return make


CASES = [(kind, n, h) for kind in ("gaussian", "categorical") for n, h in ((1, "linear"), (3, "linear"), (2, "log"))]


@pytest.mark.parametrize(("kind", "n_steps", "surrogate"), CASES)
def test_maml_is_autograd_through_steps_written_out(problem, kind, n_steps, surrogate):
    p = problem(kind, n_steps, surrogate)
    leaves = require_grad(p.phi)
    theta = dict(leaves)
    for data in p.supports:
        log_prob = p.actor(theta, data.observations).log_prob(data.actions)
        factor = log_prob if surrogate == "log" else (log_prob - data.log_probs).exp()
        total = (data.weights * data.advantages * factor).sum()
        slopes = th.autograd.grad(total, list(theta.values()), create_graph=True)
        theta = {name: value + INNER_LR * slope for (name, value), slope in zip(theta.items(), slopes, strict=True)}
    for name, value in theta.items():
        th.testing.assert_close(value, p.path[-1][name])
    log_prob = p.actor(theta, p.query.observations).log_prob(p.query.actions)
    (p.query.weights * p.query.advantages * (log_prob - p.query.log_probs).exp()).sum(1).mean().backward()
    got = p.maml()
    for name, leaf in leaves.items():
        th.testing.assert_close(got.gradient[name], leaf.grad.sum(0), rtol=1e-9, atol=1e-12)
    norms = flatten({name: N_TASKS * leaf.grad for name, leaf in leaves.items()}).norm(dim=1)
    th.testing.assert_close(got.task_norms, norms)
    assert got.solve is None


@pytest.mark.parametrize(("kind", "n_steps", "surrogate"), CASES)
def test_maml_is_the_central_difference_of_the_adapted_return(problem, draw_params, kind, n_steps, surrogate):
    p, eps = problem(kind, n_steps, surrogate), 1e-5
    direction = draw_params(p.actor, 1, 9)

    def meta_objective(step: float) -> th.Tensor:
        params = {name: value + step * direction[name] for name, value in p.phi.items()}
        for support in p.supports:
            params = p.inner_step(params, support)
        return query_surrogate(p.actor, p.query, params).mean()

    expected = (meta_objective(eps) - meta_objective(-eps)) / (2 * eps)
    got = sum((value * direction[name][0]).sum() for name, value in p.maml().gradient.items())
    assert float(got) == pytest.approx(float(expected), rel=1e-6)


def dense_hessian(p, params, support):
    """Of the likelihood-ratio objective, by central differences of the policy gradient, (n_tasks, n, n)."""
    flat, eps, columns = flatten(params), 1e-5, []
    for unit in th.eye(flat.shape[1]).double():
        up, down = (
            flatten(policy_gradient(p.actor, support, unflatten(flat + s * eps * unit, params))) for s in (1, -1)
        )
        columns.append((up - down) / (2 * eps))
    return th.stack(columns, -1)


def test_first_order_is_second_order_with_the_hessians_removed(problem):
    p = problem("categorical", 2)
    first = flatten(policy_gradient(p.actor, p.query, p.path[-1]))
    whole = first
    for params, support in reversed(list(zip(p.path[:-1], p.supports, strict=True))):
        hessian = dense_hessian(p, params, support)
        whole = whole + INNER_LR * (hessian @ whole[..., None]).squeeze(-1)
    second_order, first_order = (
        flatten(found.per_task) for found in (p.maml(), fomaml_meta_gradient(p.actor, p.path[-1], p.query))
    )
    th.testing.assert_close(first_order, first, rtol=1e-9, atol=1e-12)
    th.testing.assert_close(second_order, whole, rtol=1e-6, atol=1e-9)
    assert float((second_order - first_order).norm()) > 0.05 * float(first_order.norm())


def test_a_batch_of_tasks_gives_the_mean_of_the_tasks(problem):
    p = problem("categorical", 2)
    whole, alone = p.maml(), []
    for task in range(N_TASKS):
        own = slice(task, task + 1)
        cut = lambda x, own=own: Batch(*(part[own] for part in x))  # noqa: E731
        params = [{name: value[own] for name, value in x.items()} for x in (p.phi, p.path[-1])]
        supports = [cut(support) for support in p.supports]
        alone.append(maml_meta_gradient(p.actor, supports, *params, cut(p.query), StepSize(INNER_LR)))
    for name, value in whole.gradient.items():
        th.testing.assert_close(value, th.stack([one.gradient[name] for one in alone]).mean(0))
    th.testing.assert_close(whole.task_norms, th.cat([one.task_norms for one in alone]))


def test_one_step_of_maml_is_bomrl_unrolled_with_alg3(problem):
    p = problem("gaussian", 1)
    lower = LowerLevel(p.actor, p.supports[0], "parameter", "linear", 0.25)
    solver = InnerSolver("sgd", 0.25 * INNER_LR, 1, float("inf"))
    other = bomrl_meta_gradient(lower, p.phi, p.path[-1], p.query, "unrolled", solver)
    for name, value in p.maml().gradient.items():
        th.testing.assert_close(value, other.gradient[name], rtol=1e-12, atol=1e-15)


def test_reptile_is_the_difference_of_the_parameters(problem):
    p = problem("gaussian", 3)
    got = reptile_meta_gradient(p.actor, p.supports[2:], p.phi, p.path[2], StepSize(INNER_LR))
    for name, value in got.gradient.items():
        th.testing.assert_close(value, (p.path[3][name] - p.phi[name]).mean(0))
    th.testing.assert_close(got.task_norms, (flatten(p.path[3]) - flatten(p.phi)).norm(dim=1))


# ------------------------------------------------------------------ ProMP


def promp(p, params, kl_coefs, clip_range=0.1):
    coefs = th.tensor(kl_coefs).double()
    return promp_meta_gradient(p.actor, p.supports, p.path[:-1], params, p.query, StepSize(INNER_LR), clip_range, coefs)


def test_promp_is_maml_where_the_data_were_sampled(problem):
    p = problem("gaussian", 2)
    got, kl = promp(p, p.phi, [3.0, 7.0])
    for name, value in p.maml().gradient.items():
        th.testing.assert_close(got.gradient[name], value)
    assert float(kl.abs().max()) < 1e-14


@pytest.mark.parametrize("kind", ["gaussian", "categorical"])
def test_promp_is_the_derivative_of_the_clipped_penalised_objective(problem, draw_params, kind):
    p, eps, coefs = problem(kind, 2), 1e-6, [0.7, 1.9]
    moved = {name: value + draw_params(p.actor, 1, 8, 0.1)[name] for name, value in p.phi.items()}
    direction = draw_params(p.actor, 1, 9)

    def meta_objective(step: float) -> th.Tensor:
        params = {name: value + step * direction[name] for name, value in moved.items()}
        penalty = 0.0
        for coef, old, data in zip(coefs, p.path, p.supports, strict=False):
            kl = th.distributions.kl_divergence(p.actor(old, data.observations), p.actor(params, data.observations))
            penalty = penalty + coef * (data.weights * kl).sum(1) / 2
            params = p.inner_step(params, data)
        a = p.query.advantages
        ratio = (p.actor(params, p.query.observations).log_prob(p.query.actions) - p.query.log_probs).exp()
        clipped = th.minimum(ratio * a, ratio.clamp(0.9, 1.1) * a)
        assert bool(((ratio - 1).abs() > 0.1).any())
        assert bool(((ratio - 1).abs() < 0.1).any())
        return ((p.query.weights * clipped).sum(1) - penalty).mean()

    expected = (meta_objective(eps) - meta_objective(-eps)) / (2 * eps)
    got, kl = promp(p, moved, coefs)
    slope = sum((value * direction[name][0]).sum() for name, value in got.gradient.items())
    assert float(slope) == pytest.approx(float(expected), rel=1e-5)
    first = th.distributions.kl_divergence(*(p.actor(x, p.supports[0].observations) for x in (p.phi, moved)))
    assert float(kl[:, 0].mean()) == pytest.approx(float((p.supports[0].weights * first).sum(1).mean()))
    assert float(kl.min()) > 0


def test_the_likelihood_ratio_has_low_variance_curvature(make_table):
    """
    At the policy that acted: value E[Q], gradient (1 − γ)∇J, and Hessian (1 − γ)∇²J without the two terms that come
    from ∇Q, E[∇log π ∇Qᵀ] and its transpose (Rothfuss et al., 2019, Section 5); with h = log one more is missing.
    """
    mdp = FiniteMDP.random(4, 3, 0.8, seed=2)
    phi = th.randn(4, 3, generator=th.Generator().manual_seed(0), dtype=th.double)
    actor, policy = make_table(4, 3), phi.softmax(-1)
    _, q_values = policy_value(mdp, policy)
    joint = state_visitation(mdp, policy)[:, None] * policy
    pairs = th.cartesian_prod(th.arange(4), th.arange(3))[None]
    batch = Batch(
        actor.preprocess(pairs[..., 0]),
        pairs[..., 1],
        policy.log().flatten()[None],
        q_values.flatten()[None],
        joint.flatten()[None],
    )

    def surrogate(logits, name="linear"):
        return query_surrogate(actor, batch, {"action_net.weight": logits.reshape(4, 3).T[None]}, get_surrogate(name))

    def scaled_return(logits):
        return (1 - mdp.gamma) * expected_return(mdp, logits.reshape(4, 3).softmax(-1))

    def scores(logits):
        return logits.reshape(4, 3).log_softmax(-1).flatten()

    flat = phi.flatten()
    jacobian = th.autograd.functional.jacobian
    assert float(surrogate(flat)) == pytest.approx(float((joint * q_values).sum()), rel=1e-12)
    slope = jacobian(scaled_return, flat)
    th.testing.assert_close(jacobian(lambda x: surrogate(x)[0], flat), slope)

    score = jacobian(scores, flat)
    q_slope = jacobian(lambda x: policy_value(mdp, x.reshape(4, 3).softmax(-1))[1].flatten(), flat)
    cross = (joint.flatten()[:, None] * score).T @ q_slope
    hessian = th.autograd.functional.hessian
    exact = hessian(scaled_return, flat)
    curvature = exact - cross - cross.T
    th.testing.assert_close(hessian(lambda x: surrogate(x)[0], flat), curvature)
    assert float((exact - curvature).norm()) > 0.05 * float(exact.norm())
    outer = ((joint * q_values).flatten()[:, None] * score).T @ score
    th.testing.assert_close(hessian(lambda x: surrogate(x, "log")[0], flat), curvature - outer)
    assert float(outer.norm()) > 0.05 * float(exact.norm())


# ------------------------------------------------------------------ credit


def test_the_credit_is_the_lead_over_the_other_tasks():
    rewards = th.tensor([[[1.0], [2.0], [4.0]], [[0.0], [0.0], [3.0]], [[5.0], [1.0], [99.0]]])
    mask = th.ones(3, 3, 1, dtype=th.bool)
    mask[2, 2] = False
    starts = th.tensor([[True], [False], [True]]).expand(3, 3, 1).clone()  # two episodes, of two steps and of one
    advantages = th.tensor([[[1.0], [3.0], [5.0]], [[0.0], [0.0], [6.0]], [[2.0], [4.0], [0.0]]])
    fields = dict.fromkeys(Rollout._fields, mask)
    rollout = Rollout(**{**fields, "rewards": rewards, "episode_starts": starts, "advantages": advantages})
    # returns per episode 3.5, 1.5, 6; two episodes in three steps, and one in two
    expected = th.tensor([(3.5 - 3.75) * 2 / 3, (1.5 - 4.75) * 2 / 3, (6.0 - 2.5) / 2]).double()
    th.testing.assert_close(leave_one_out_credit(rollout, batches.state_visitation(rollout), False), expected)
    variance = (8 / 3 + 8.0 + 1.0) / 3
    scaled = leave_one_out_credit(rollout, batches.state_visitation(rollout), True)
    th.testing.assert_close(scaled, expected / variance**0.5, check_dtype=False)
    # γ = 1/2: returns 3, 1.5, 5.5; weights 2.5, 2.5, 1.5
    expected = th.tensor([(3.0 - 3.5) * 2 / 2.5, (1.5 - 4.25) * 2 / 2.5, (5.5 - 2.25) / 1.5]).double()
    th.testing.assert_close(leave_one_out_credit(rollout, batches.state_visitation(rollout, 0.5), False), expected)
    alone = Rollout(*(x[:1] for x in rollout))
    th.testing.assert_close(
        leave_one_out_credit(alone, batches.state_visitation(alone), False), th.tensor([3.5 * 2 / 3]).double()
    )
