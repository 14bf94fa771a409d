"""The softmax table."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO

from sb3_bomrl.core.params import stack
from sb3_bomrl.policies import TabularPolicy
from sb3_bomrl.policies.actor import Actor


def table(n_states: int = 5, n_actions: int = 3) -> TabularPolicy:
    return TabularPolicy(spaces.Discrete(n_states), spaces.Discrete(n_actions), lambda _: 0.1)


def test_uniform_at_the_start_with_values_zero():
    policy, states = table(), th.arange(5)
    assert th.allclose(policy.get_distribution(states).distribution.probs, th.full((5, 3), 1 / 3))
    assert th.equal(policy.predict_values(states), th.zeros(5, 1))


def test_the_distribution_is_the_softmax_of_the_states_row():
    policy = table()
    logits = th.randn(3, 5, generator=th.Generator().manual_seed(0))
    with th.no_grad():
        policy.action_net.weight.copy_(logits)
        policy.value_net.weight.copy_(th.arange(5.0)[None])
    probs = policy.get_distribution(th.arange(5)).distribution.probs
    assert th.allclose(probs, logits.T.softmax(-1))
    assert th.equal(policy.predict_values(th.arange(5)).flatten(), th.arange(5.0))


def test_a_state_moves_only_its_own_row():
    policy = table()
    actor = Actor(policy)
    params = {k: v.requires_grad_() for k, v in stack(actor.params(), 2).items()}
    states = th.tensor([[1, 1], [4, 4]])
    actions = th.zeros(2, 2, dtype=th.long)
    actor(params, actor.preprocess(states)).log_prob(actions).sum().backward()
    gradient = params["action_net.weight"].grad
    assert gradient[0, :, 1].abs().min() > 0
    assert gradient[1, :, 4].abs().min() > 0
    assert gradient.abs().sum() == gradient[0, :, 1].abs().sum() + gradient[1, :, 4].abs().sum()


def test_the_optimiser_holds_exactly_the_parameters():
    policy = table()
    held = {id(p) for group in policy.optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in policy.parameters()}
    assert sum(p.numel() for p in policy.parameters()) == 5 * 3 + 5


def test_save_and_load(tmp_path):
    policy = table()
    with th.no_grad():
        policy.action_net.weight.copy_(th.randn(3, 5))
    policy.save(str(tmp_path / "table.pth"))
    loaded = TabularPolicy.load(str(tmp_path / "table.pth"))
    assert th.equal(loaded.action_net.weight, policy.action_net.weight)


def test_sb3s_own_algorithms_accept_it():
    model = PPO(TabularPolicy, "CliffWalking-v1", n_steps=8, batch_size=8, n_epochs=1, seed=0)
    model.learn(16)
    assert np.isfinite(model.policy.action_net.weight.detach().numpy()).all()
    assert model.policy.action_net.weight.abs().sum() > 0


@pytest.mark.parametrize(
    ("observation_space", "action_space", "name"),
    [
        (spaces.Box(-1, 1, (2,)), spaces.Discrete(2), "observation_space"),
        (spaces.Discrete(2), spaces.Box(-1, 1, (2,)), "action_space"),
        (spaces.MultiDiscrete([2, 2]), spaces.Discrete(2), "observation_space"),
    ],
)
def test_other_spaces_are_refused(observation_space, action_space, name):
    with pytest.raises(ValueError, match=f"TabularPolicy needs a Discrete {name}, got .*: use 'MlpPolicy'"):
        TabularPolicy(observation_space, action_space, lambda _: 0.1)
