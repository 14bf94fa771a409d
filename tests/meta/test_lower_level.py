"""The lower level's data and objective, on a rollout made by hand and against the equations written out."""

import pytest
import torch as th

from sb3_bomrl.core.inner_solvers import InnerSolver, InnerStatus
from sb3_bomrl.core.params import flatten, grad, require_grad
from sb3_bomrl.meta.batches import make_batch, state_visitation, steps_in_episode
from sb3_bomrl.meta.lower_level import LowerLevel, adapt
from sb3_bomrl.types import Rollout

T, F = True, False


@pytest.fixture
def rollout() -> Rollout:
    """One task of a 3-state, 2-action problem; 4 steps, 2 environments, the last step of the second is padding."""
    states = th.tensor([[[0, 1], [1, 2], [2, 0], [0, 0]]])
    starts = th.tensor([[[T, T], [F, F], [T, F], [F, F]]])
    ends = th.tensor([[[F, F], [T, F], [F, T], [T, F]]])
    mask = th.tensor([[[T, T], [T, T], [T, T], [T, F]]])
    advantages = th.tensor([[[1.0, -2.0], [0.5, 3.0], [2.0, -1.0], [0.0, 0.0]]]).double()
    actions = th.tensor([[[0, 1], [1, 0], [1, 1], [0, 0]]])
    log_probs = th.full((1, 4, 2), 0.5).double().log()
    nothing, rewards = th.zeros_like(mask), th.zeros(1, 4, 2)
    return Rollout(
        states, actions, log_probs, rewards, starts, ends, nothing, states[0, 0, :0], mask, advantages, rewards
    )


def test_steps_are_counted_from_the_start_of_each_episode(rollout):
    assert steps_in_episode(rollout)[0].tolist() == [[0, 0], [1, 1], [0, 2], [1, 3]]


def test_a_batch_joins_steps_and_environments_in_one_order(rollout, make_table):
    batch = make_batch(rollout, make_table(3, 2), state_visitation(rollout), normalize_advantage=False)
    assert batch.observations.dtype == batch.weights.dtype == th.double
    assert batch.observations[0].argmax(-1).tolist() == [0, 1, 1, 2, 2, 0, 0, 0]
    assert batch.actions[0].tolist() == [0, 1, 1, 0, 1, 1, 0, 0]
    assert th.allclose(batch.log_probs[0].exp(), th.tensor(0.5).double())
    mean = 3.5 / 7
    expected = th.tensor([1.0, -2.0, 0.5, 3.0, 2.0, -1.0, 0.0]).double() - mean
    assert th.allclose(batch.advantages[0, :7], expected)
    assert batch.advantages[0, 7] == 0.0
    assert th.allclose(batch.weights[0], th.tensor([1 / 7] * 7 + [0.0]).double())
    scaled = make_batch(rollout, make_table(3, 2), state_visitation(rollout), normalize_advantage=True).advantages[0]
    assert th.allclose(scaled[:7], expected / expected.square().mean().sqrt())


def test_weights_are_the_discounted_visitation_to_full_precision(rollout, make_table):
    weights = make_batch(rollout, make_table(3, 2), state_visitation(rollout, 0.9), False).weights[0]
    expected = th.tensor([1.0, 1.0, 0.9, 0.9, 1.0, 0.81, 0.9, 0.0], dtype=th.double)
    assert th.allclose(weights, expected / expected.sum(), rtol=1e-14, atol=0.0)


@pytest.mark.parametrize("distance", ["kl_meta_task", "kl_task_meta", "parameter"])
@pytest.mark.parametrize("kind", ["gaussian", "categorical"])
def test_the_objective_is_the_equation_written_out(kind, distance, make_actor, draw_params, draw_batch):
    actor = make_actor(kind)
    phi, theta = draw_params(actor, 2, 1), draw_params(actor, 2, 2)
    data = draw_batch(actor, phi, 20, 3)
    lower = LowerLevel(actor, data, distance, "clip", 0.4, clip_range=0.1)
    value = lower.value(theta, phi, lower.policy(phi))
    new, old = actor(theta, data.observations), actor(phi, data.observations)
    forward = th.distributions.kl_divergence(old, new)
    backward = th.distributions.kl_divergence(new, old)
    for task in range(2):
        d = {
            "kl_meta_task": (data.weights * forward)[task].sum(),
            "kl_task_meta": (data.weights * backward)[task].sum(),
            "parameter": sum((theta[name] - phi[name])[task].square().sum() for name in phi),
        }[distance]
        r = (new.log_prob(data.actions) - data.log_probs)[task].exp()
        a = data.advantages[task]
        gain = (data.weights[task] * th.minimum(r * a, r.clamp(0.9, 1.1) * a)).sum()
        assert float(value.distance[task]) == pytest.approx(float(d), rel=1e-12)
        assert float(value.objective[task]) == pytest.approx(float(d - gain / 0.4), rel=1e-12)
        assert float(value.kl[task]) == pytest.approx(float((data.weights * forward)[task].sum()), rel=1e-12)
    assert th.equal(lower.loss(theta, phi), value.objective)
    if distance != "parameter":
        per_state = lower.state_distance(theta, phi)
        assert th.equal(per_state, forward if distance == "kl_meta_task" else backward)
        assert th.allclose((data.weights * per_state).sum(1), value.distance)


@pytest.mark.parametrize("kind", ["gaussian", "categorical"])
def test_the_metric_has_no_slope_and_the_fisher_matrix_as_hessian(kind, make_actor, draw_params, draw_batch):
    """F = E[∇log π ∇log πᵀ], by Monte Carlo over actions."""
    actor = make_actor(kind)
    phi = draw_params(actor, 1, 1)
    lower = LowerLevel(actor, draw_batch(actor, phi, 4, 2), "parameter", "linear", 1.0)
    theta = require_grad(phi)
    slope = flatten(grad(lower.metric(theta).sum(), theta, create_graph=True))
    hessian = th.cat([flatten(grad(s.sum(), theta, retain_graph=True)) for s in slope.unbind(1)])
    assert float(slope.detach().abs().max()) < 1e-12
    with th.random.fork_rng():
        th.manual_seed(0)
        actions = lower.policy(phi).sample((4000,))
    n = len(actions)
    many = {name: value.detach().expand(n, *value.shape[1:]).clone().requires_grad_() for name, value in phi.items()}
    fisher = th.zeros_like(hessian)
    for sample in range(4):
        log_prob = actor(many, lower.batch.observations[:, sample : sample + 1].expand(n, 1, 2)).log_prob(
            actions[:, :, sample]
        )
        score = flatten(grad(log_prob.sum(), many))
        fisher += lower.batch.weights[0, sample] * score.mT @ score / n
    assert float((hessian - fisher).norm()) < 0.05 * float(fisher.norm())


def test_adapting_improves_the_objective_and_leaves_the_meta_parameters_alone(make_actor, draw_params, draw_batch):
    actor = make_actor("gaussian")
    phi = draw_params(actor, 2, 1)
    before = {name: value.clone() for name, value in phi.items()}
    lower = LowerLevel(actor, draw_batch(actor, phi, 30, 2), "kl_meta_task", "sigmoid", 0.5)
    at_start = lower.loss(phi, phi).detach()
    adapted = adapt(lower, phi, InnerSolver("adam", 0.01, 40))
    assert bool((adapted.objective < at_start - 0.01).all())
    assert th.allclose(adapted.objective, lower.loss(adapted.params, phi))
    assert all(th.equal(before[name], value) for name, value in phi.items())
    assert not any(value.requires_grad for value in adapted.params.values())

    near = adapt(lower, phi, InnerSolver("adam", 0.01, 40, max_kl=float(adapted.kl.min()) / 2))
    assert near.status.tolist() == [InnerStatus.KL_LIMIT] * 2
    assert bool((near.kl <= adapted.kl.min() / 2).all())


def test_adapting_tasks_together_is_adapting_each_alone(make_actor, draw_params, draw_batch):
    actor = make_actor("categorical")
    phi = draw_params(actor, 3, 1)
    data = draw_batch(actor, phi, 30, 2)
    # damped: softmax logits leave the Fisher matrix singular, and conjugate gradients would solve for rounding errors
    for solver in (InnerSolver("adam", 0.02, 20), InnerSolver("natural_gradient", 0.1, 3, cg_damping=0.1)):
        together = adapt(LowerLevel(actor, data, "kl_task_meta", "clip", 5.0), phi, solver)
        for task in range(3):
            own = slice(task, task + 1)
            part = type(data)(*(x[own] for x in data))
            alone = adapt(
                LowerLevel(actor, part, "kl_task_meta", "clip", 5.0), {k: v[own] for k, v in phi.items()}, solver
            )
            for name, value in alone.params.items():
                assert th.allclose(together.params[name][own], value, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("advantage", [1.0, -1.0])
@pytest.mark.parametrize("surrogate", ["linear", "log"])
def test_a_step_that_moves_a_sharp_policy_far_is_taken(surrogate, advantage, make_actor, draw_params, draw_batch):
    actor = make_actor("gaussian")
    sharp = draw_params(actor, 2, 1)
    sharp["log_std"] = th.full_like(sharp["log_std"], -2.0)
    drawn = draw_batch(actor, sharp, 20, 3)
    drawn = drawn._replace(advantages=th.full_like(drawn.advantages, advantage))
    phi = {name: value.float() for name, value in sharp.items()}
    data = type(drawn)(*(value.float() for value in drawn))
    lower = LowerLevel(actor, data, "parameter", surrogate, 1.0)
    result = adapt(lower, phi, InnerSolver("sgd", 1.0, 1, float("inf")))
    assert (result.kl > 30.0).all()
    assert (result.status == InnerStatus.MAX_STEPS).all()
    score = grad((data.weights * lower.policy(theta := require_grad(phi)).log_prob(data.actions)).sum(), theta)
    for name, value in result.params.items():
        assert th.allclose(value, phi[name] + advantage * score[name], rtol=1e-4, atol=1e-5)
