"""Small double-precision policies and random data for the lower level."""

from collections.abc import Callable

import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_bomrl.core.params import stack
from sb3_bomrl.policies import TabularPolicy
from sb3_bomrl.policies.actor import Actor
from sb3_bomrl.types import Batch, Params

ACTION_SPACES = {"gaussian": spaces.Box(-1.0, 1.0, (2,)), "categorical": spaces.Discrete(3)}


def _make_actor(kind: str, n_hidden: int = 2) -> Actor:
    """A tanh network in double precision, 15 to 17 parameters."""
    space = spaces.Box(-1.0, 1.0, (2,))
    policy = ActorCriticPolicy(space, ACTION_SPACES[kind], lambda _: 1e-3, net_arch=[n_hidden], ortho_init=False)
    return Actor(policy.double())


def _make_table(n_states: int, n_actions: int) -> Actor:
    """A softmax table in double precision; its only parameter is (n_actions, n_states)."""
    policy = TabularPolicy(spaces.Discrete(n_states), spaces.Discrete(n_actions), lambda _: 1e-3)
    return Actor(policy.double())


def _draw_params(actor: Actor, n_tasks: int, seed: int, scale: float = 0.5) -> Params:
    """Different parameters for every task."""
    generator = th.Generator().manual_seed(seed)
    return {
        name: scale * th.randn(value.shape, generator=generator, dtype=th.double)
        for name, value in stack(actor.params(), n_tasks).items()
    }


def _draw_batch(actor: Actor, params: Params, n_samples: int, seed: int) -> Batch:
    """Random states, actions of the policy at ``params``, random advantages and weights."""
    n_tasks = len(next(iter(params.values())))
    generator = th.Generator().manual_seed(seed)
    shape = (n_tasks, n_samples)
    obs = th.randn(*shape, 2, generator=generator, dtype=th.double)
    with th.no_grad(), th.random.fork_rng():
        th.manual_seed(seed)
        policy = actor(params, obs)
        actions = policy.sample()
        log_probs = policy.log_prob(actions)
    weights = th.rand(shape, generator=generator, dtype=th.double) + 0.1
    return Batch(
        observations=obs,
        actions=actions,
        log_probs=log_probs,
        advantages=th.randn(shape, generator=generator, dtype=th.double),
        weights=weights / weights.sum(1, keepdim=True),
    )


@pytest.fixture
def make_actor() -> Callable[..., Actor]:
    return _make_actor


@pytest.fixture
def make_table() -> Callable[..., Actor]:
    return _make_table


@pytest.fixture
def draw_params() -> Callable[..., Params]:
    return _draw_params


@pytest.fixture
def draw_batch() -> Callable[..., Batch]:
    return _draw_batch
