"""The algorithms that Eq. (A2) contains, each as an equality."""

import numpy as np
import pytest
import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env

from sb3_bomrl.core.inner_solvers import InnerSolver
from sb3_bomrl.core.params import flatten, grad, require_grad, stack
from sb3_bomrl.meta.lower_level import LowerLevel, adapt
from sb3_bomrl.meta.policy_gradient import policy_gradient
from sb3_bomrl.policies.actor import Actor
from sb3_bomrl.tabular import FiniteMDP, expected_return, policy_value, state_visitation
from sb3_bomrl.types import Batch

N_TASKS = 2
FREE = float("inf")


@pytest.fixture(params=["gaussian", "categorical"])
def problem(request, make_actor, draw_params, draw_batch):
    actor = make_actor(request.param)
    phi = draw_params(actor, N_TASKS, {"gaussian": 1, "categorical": 4}[request.param], 1.0)
    return actor, phi, draw_batch(actor, phi, 60, 2)


def plain_policy_gradient(actor, batch, params) -> th.Tensor:
    """Σ_t w_t A_t ∇log π(a_t∣s_t), (n_tasks, n_params)."""
    theta = require_grad(params)
    log_prob = actor(theta, batch.observations).log_prob(batch.actions)
    return flatten(grad((batch.weights * batch.advantages * log_prob).sum(), theta))


def test_all_surrogates_and_distances_have_one_gradient_at_the_meta_policy(problem):
    actor, phi, batch = problem
    expected = -plain_policy_gradient(actor, batch, phi) / 0.7
    for distance in ("kl_meta_task", "kl_task_meta", "parameter"):
        for surrogate in ("linear", "sigmoid", "clip"):
            theta = require_grad(phi)
            lower = LowerLevel(actor, batch, distance, surrogate, 0.7)
            assert th.allclose(flatten(grad(lower.loss(theta, phi).sum(), theta)), expected, rtol=1e-8, atol=1e-12)


def test_policy_gradient_is_one_sgd_step_and_mamls_inner_step_has_size_learning_rate_over_lambda(problem):
    """θ' = φ + (α/λ) g. With α = 1/2, a Newton step on the distance alone, MAML's step size is 1/(2λ)."""
    actor, phi, batch = problem
    g = plain_policy_gradient(actor, batch, phi)
    assert th.allclose(g, flatten(policy_gradient(actor, batch, phi)), rtol=1e-9, atol=1e-13)
    for learning_rate, reg_coef in ((0.01, 1.0), (0.5, 4.0)):
        lower = LowerLevel(actor, batch, "parameter", "linear", reg_coef)
        adapted = adapt(lower, phi, InnerSolver("sgd", learning_rate, 1, FREE)).params
        moved = flatten(adapted) - flatten(phi)
        assert th.allclose(moved, learning_rate / reg_coef * g, rtol=1e-9, atol=1e-14)
    # the minimiser of the lower level with the surrogate linearised at φ: g/λ = 2 (θ − φ)
    assert th.allclose(moved, g / (2 * reg_coef), rtol=1e-9, atol=1e-14)


def test_with_exact_data_the_step_is_along_the_gradient_of_the_return(make_table):
    mdp = FiniteMDP.random(4, 3, 0.8, seed=1)
    logits = th.randn(4, 3, generator=th.Generator().manual_seed(0), dtype=th.double).requires_grad_()
    policy = logits.softmax(-1)
    expected = th.autograd.grad(expected_return(mdp, policy), logits)[0]
    policy, actor = policy.detach(), make_table(4, 3)
    values, q_values = policy_value(mdp, policy)
    pairs = th.cartesian_prod(th.arange(4), th.arange(3))[None]
    weights = (state_visitation(mdp, policy)[:, None] * policy).flatten()[None]
    advantages = (q_values - values[:, None]).flatten()[None]
    batch = Batch(actor.preprocess(pairs[..., 0]), pairs[..., 1], policy.log().flatten()[None], advantages, weights)
    lower = LowerLevel(actor, batch, "parameter", "linear", 2.0)
    phi = {"action_net.weight": logits.detach().T[None]}
    adapted = adapt(lower, phi, InnerSolver("sgd", 0.1, 1, FREE)).params
    moved = (adapted["action_net.weight"] - phi["action_net.weight"])[0].T
    assert th.allclose(moved, 0.1 / 2.0 * (1 - mdp.gamma) * expected, rtol=1e-9, atol=1e-14)


def fisher_matrix(actor, batch, phi) -> th.Tensor:
    """Σ_t w_t E_a[∇log π ∇log πᵀ], by summing over actions (categorical) or in closed form (Gaussian), per task."""
    theta = require_grad(phi)
    policy = actor(theta, batch.observations)
    rows = []
    if hasattr(policy, "logits"):
        columns = [(policy.logits[..., a], policy.probs[..., a].detach()) for a in range(policy.logits.shape[-1])]
    else:
        base = policy.base_dist  # information of a mean: 1/σ²; of log σ: 2
        scale = base.scale.detach()
        columns = [(base.loc[..., d], 1 / scale[..., d] ** 2) for d in range(scale.shape[-1])]
        columns += [(base.scale[..., d].log(), 2 * th.ones_like(scale[..., d])) for d in range(scale.shape[-1])]
    for output, information in columns:
        for sample in range(output.shape[1]):
            jacobian = flatten(grad(output[:, sample].sum(), theta, retain_graph=True))
            rows.append((batch.weights[:, sample] * information[:, sample]).sqrt()[:, None] * jacobian)
    stacked = th.stack(rows, 1)
    return stacked.mT @ stacked


def dense_hessian(lower, theta, phi) -> tuple[th.Tensor, th.Tensor]:
    theta = require_grad(theta)
    gradient = flatten(grad(lower.loss(theta, phi).sum(), theta, create_graph=True))
    return gradient.detach(), th.stack(
        [flatten(grad(g.sum(), theta, retain_graph=True)) for g in gradient.unbind(1)], 1
    )


def test_natural_policy_gradient_is_one_natural_gradient_step(problem):
    """θ' = φ + F(φ)⁻¹ g/λ, Alg(2), step size 1."""
    actor, phi, batch = problem
    g, fisher = plain_policy_gradient(actor, batch, phi), fisher_matrix(actor, batch, phi)
    lower = LowerLevel(actor, batch, "kl_task_meta", "linear", 3.0)
    solver = InnerSolver("natural_gradient", 1.0, 1, FREE, cg_max_steps=200)
    moved = flatten(adapt(lower, phi, solver).params) - flatten(phi)
    expected = (th.linalg.pinv(fisher, rtol=1e-9, hermitian=True) @ g[..., None]).squeeze(-1) / 3.0
    assert float((moved - expected).norm()) < 1e-5 * float(expected.norm())


def test_the_newton_step_is_the_natural_gradient_only_in_the_limit_of_a_large_lambda(problem):
    """
    The Hessian of F at θ = φ is F(φ) − (1/λ) Σ_t w_t A_t ∇²π/π, the second term being of order 1/λ.

    So λ(θ' − φ) of Newton differs from F(φ)⁻¹ g by O(1/λ).
    """
    actor, phi, batch = problem
    fisher, errors = fisher_matrix(actor, batch, phi), []
    natural = th.linalg.pinv(fisher, rtol=1e-9, hermitian=True) @ plain_policy_gradient(actor, batch, phi)[..., None]
    for reg_coef in (1e3, 1e4, 1e5, 1e6):
        gradient, hessian = dense_hessian(LowerLevel(actor, batch, "kl_task_meta", "linear", reg_coef), phi, phi)
        newton = -reg_coef * th.linalg.pinv(hessian, rtol=1e-9, hermitian=True) @ gradient[..., None]
        errors.append(float((newton - natural).norm() / natural.norm()))
        curvature = reg_coef * (fisher - hessian)
    assert errors[0] > 1e-3
    assert np.array(errors[1:]) == pytest.approx(np.array(errors[:-1]) / 10, rel=0.2)
    theta = require_grad(phi)  # Σ_t w_t A_t ∇²π/π: the second derivative of the importance-weighted gain
    gain = (
        batch.weights
        * batch.advantages
        * (actor(theta, batch.observations).log_prob(batch.actions) - batch.log_probs).exp()
    )
    slope = flatten(grad(gain.sum(), theta, create_graph=True))
    expected = th.stack([flatten(grad(s.sum(), theta, retain_graph=True)) for s in slope.unbind(1)], 1)
    assert th.allclose(curvature, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kl_coef", [1e-9, 0.5])
def test_clipped_surrogate_is_ppos_loss_with_a_kl_penalty(problem, draw_params, kl_coef):
    """λ F = L_PPO + λ D, with L_PPO as SB3's PPO computes it, from SB3's own distributions."""
    actor, phi, batch = problem
    step = draw_params(actor, N_TASKS, 7, 0.2)
    theta = require_grad({name: value + step[name] for name, value in phi.items()})
    lower = LowerLevel(actor, batch, "kl_meta_task", "clip", kl_coef, clip_range=0.2)
    got = grad(kl_coef * lower.loss(theta, phi).sum(), theta)
    for task in range(N_TASKS):
        actor.load_params({name: value[task] for name, value in theta.items()})
        actor.policy.zero_grad()
        latent = actor.policy.mlp_extractor.forward_actor(batch.observations[task])
        distribution = actor.policy._get_action_dist_from_latent(latent)
        log_prob = distribution.log_prob(batch.actions[task])
        ratio = th.exp(log_prob - batch.log_probs[task])
        assert bool(((ratio - 1).abs() > 0.2).any())
        unclipped = batch.advantages[task] * ratio
        clipped = batch.advantages[task] * th.clamp(ratio, 0.8, 1.2)
        loss = -(batch.weights[task] * th.min(unclipped, clipped)).sum()
        old = actor({name: value[task : task + 1] for name, value in phi.items()}, batch.observations[task : task + 1])
        own = old.base_dist if hasattr(old, "base_dist") else old
        kl = th.distributions.kl_divergence(own, distribution.distribution)[0]
        loss = loss + kl_coef * (batch.weights[task] * (kl.sum(-1) if kl.dim() == 2 else kl)).sum()
        loss.backward()
        named = dict(actor.policy.named_parameters())
        for name in actor.names:
            assert th.allclose(got[name][task], named[name].grad, rtol=1e-8, atol=1e-12)


def test_one_step_is_the_update_of_sb3s_ppo():
    """A whole ``PPO.train`` with plain SGD against one SGD step on λ F, with ratios away from 1."""
    env = make_vec_env("CartPole-v1", n_envs=2, seed=0)
    model = PPO(
        "MlpPolicy",
        env,
        learning_rate=0.05,
        n_steps=64,
        batch_size=128,
        n_epochs=1,
        vf_coef=0.0,
        normalize_advantage=False,
        max_grad_norm=1e9,
        policy_kwargs={"net_arch": [4], "optimizer_class": th.optim.SGD},
        seed=0,
        device="cpu",
    )
    model.learn(128)
    buffer, actor = model.rollout_buffer, Actor(model.policy)
    # data of another policy, so that many ratios are clipped, and not the data that were just trained on
    buffer.log_probs = buffer.log_probs + np.random.default_rng(0).normal(0, 0.4, buffer.log_probs.shape).astype("f4")
    phi = stack(actor.params(), 1)
    obs, actions, log_probs, advantages = (
        th.as_tensor(x) for x in (buffer.observations, buffer.actions, buffer.log_probs, buffer.advantages)
    )
    batch = Batch(
        obs.reshape(1, 128, 4),
        actions.reshape(1, 128),
        log_probs.reshape(1, 128),
        advantages.reshape(1, 128),
        th.full((1, 128), 1 / 128),
    )
    model.train()
    env.close()
    reg_coef = 1e-3
    lower = LowerLevel(actor, batch, "kl_meta_task", "clip", reg_coef, clip_range=0.2)
    adapted = adapt(lower, phi, InnerSolver("sgd", 0.05 * reg_coef, 1, FREE)).params
    moved = flatten(stack(actor.params(), 1)) - flatten(phi)
    assert float(moved.norm()) > 1e-3
    assert th.allclose(flatten(adapted) - flatten(phi), moved, rtol=1e-3, atol=1e-6)
