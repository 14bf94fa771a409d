"""Merged samples of a softmax table give the same objectives and derivatives as all samples."""

import pytest
import torch as th
from gymnasium import spaces

from sb3_bomrl.core.params import flatten, grad, require_grad, stack
from sb3_bomrl.meta.batches import merge_samples
from sb3_bomrl.meta.lower_level import LowerLevel
from sb3_bomrl.meta.policy_gradient import policy_gradient, query_surrogate
from sb3_bomrl.policies import TabularPolicy
from sb3_bomrl.policies.actor import Actor
from sb3_bomrl.types import Batch

N_TASKS, N_STATES, N_ACTIONS, N_SAMPLES = 2, 5, 3, 500


@pytest.fixture(name="setup")
def fixture_setup():
    th.manual_seed(0)
    policy = TabularPolicy(spaces.Discrete(N_STATES), spaces.Discrete(N_ACTIONS), lambda _: 1e-3).double()
    actor = Actor(policy)
    phi = {k: v + 0.5 * th.randn_like(v) for k, v in stack(actor.params(), N_TASKS).items()}
    observations = actor.preprocess(th.randint(N_STATES - 1, (N_TASKS, N_SAMPLES)))
    actions = actor(phi, observations).sample()
    weights = th.rand(N_TASKS, N_SAMPLES, dtype=th.double)
    batch = Batch(
        observations,
        actions,
        actor(phi, observations).log_prob(actions),
        th.randn(N_TASKS, N_SAMPLES, dtype=th.double),
        weights / weights.sum(1, keepdim=True),
    )
    return actor, phi, batch, merge_samples(batch, N_ACTIONS)


@pytest.mark.parametrize("surrogate", ["linear", "sigmoid", "clip"])
@pytest.mark.parametrize("distance", ["kl_meta_task", "kl_task_meta", "parameter"])
def test_lower_level_and_its_derivatives_are_the_same(setup, distance, surrogate):
    actor, phi, batch, merged = setup
    theta = {k: v + 0.3 * th.randn_like(v) for k, v in phi.items()}
    direction = th.randn_like(flatten(phi))
    results = []
    for data in (batch, merged):
        lower = LowerLevel(actor, data, distance, surrogate, 0.3)
        leaves, meta = require_grad(theta), require_grad(phi)
        loss = lower.loss(leaves, meta)
        first = flatten(grad(loss.sum(), leaves, create_graph=True))
        second = flatten(grad((first * direction).sum(), leaves, retain_graph=True))
        mixed = flatten(grad((first * direction).sum(), meta))
        results.append((loss.detach(), first.detach(), second, mixed))
    for all_samples, few_samples in zip(*results, strict=True):
        th.testing.assert_close(few_samples, all_samples, rtol=1e-10, atol=1e-12)


def test_upper_level_is_the_same(setup):
    actor, phi, batch, merged = setup
    theta = {k: v + 0.3 * th.randn_like(v) for k, v in phi.items()}
    th.testing.assert_close(query_surrogate(actor, merged, theta), query_surrogate(actor, batch, theta))
    th.testing.assert_close(flatten(policy_gradient(actor, merged, phi)), flatten(policy_gradient(actor, batch, phi)))


def test_size_does_not_grow_with_the_data(setup):
    *_, merged = setup
    assert merged.weights.shape == (N_TASKS, 2 * N_STATES * N_ACTIONS)
    th.testing.assert_close(merged.weights.sum(1), th.ones(N_TASKS, dtype=th.double))
    assert (merged.weights[:, -2 * N_ACTIONS :] == 0).all()  # the last state is never visited
