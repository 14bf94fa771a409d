"""Axis order, flags and padding of assembled rollouts."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_bomrl.rollout.assemble import assemble, concatenate

BOX = spaces.Box(-1.0, 1.0, (1,), np.float32)


def arrays(n_steps, n_envs, offset=0.0):
    """Numbers that say where they come from: 100 · step + environment."""
    label = (100.0 * np.arange(n_steps)[:, None] + np.arange(n_envs) + offset).astype(np.float32)
    return {
        "observations": np.stack([label, -label], -1),
        "actions": label[..., None],
        "log_probs": label,
        "rewards": label,
        "true_rewards": 2 * label,
    }


def build(n_steps=3, n_envs=4, n_tasks=2, cuts=(), space=BOX, ends=None, mask=None, **replaced):
    flags = np.zeros((n_steps, n_envs), dtype=bool) if ends is None else ends
    data = {**arrays(n_steps, n_envs), **replaced}
    return assemble(data, flags, flags, cuts, n_tasks, SimpleNamespace(action_space=space), mask)


def test_neighbouring_environments_belong_to_one_task():
    rollout = build()
    assert rollout.rewards.shape == (2, 3, 2)
    assert rollout.rewards[1, 2].tolist() == [202.0, 203.0]
    assert rollout.observations[0, 1, 1].tolist() == [101.0, -101.0]
    assert rollout.mask.all()
    assert (rollout.advantages == 0).all()


def test_assemble_makes_views():
    data = arrays(3, 4)
    rollout = build(**data)
    data["rewards"][2, 3] = -7.0
    assert rollout.rewards[1, 2, 1] == -7.0


def test_final_observations_follow_the_order_of_the_mask():
    # given in the order of time, wanted in the order of (task, step, environment)
    cuts = [(step, e, np.array([10.0 * step + e, 0.0])) for step, e in [(0, 3), (1, 0), (1, 2), (2, 1), (2, 0)]]
    rollout = build(cuts=cuts)
    owners = rollout.truncated.nonzero().tolist()
    assert owners == [[0, 1, 0], [0, 2, 0], [0, 2, 1], [1, 0, 1], [1, 1, 0]]
    expected = [10.0 * step + 2 * task + e for task, step, e in owners]
    assert rollout.final_observations[:, 0].tolist() == expected


def test_no_cuts_give_no_final_observations():
    assert build().final_observations.shape == (0, 2)


@pytest.mark.parametrize(
    ("space", "shape", "dtype"),
    [
        (spaces.Discrete(3), (2, 3, 2), th.int64),
        (spaces.MultiDiscrete([2, 3]), (2, 3, 2, 2), th.int64),
        (spaces.MultiBinary(2), (2, 3, 2, 2), th.float32),
    ],
)
def test_actions_have_the_shape_and_type_that_distributions_sample(space, shape, dtype):
    n = 1 if isinstance(space, spaces.Discrete) else 2
    rollout = build(space=space, actions=np.ones((3, 4, n), dtype=np.float32))
    assert rollout.actions.shape == shape
    assert rollout.actions.dtype == dtype


def test_dictionaries_are_assembled_by_key():
    observations = {"a": np.zeros((3, 4, 2), np.float32), "b": np.arange(12, dtype=np.uint8).reshape(3, 4, 1)}
    cuts = [(1, 2, {"a": np.ones(2, np.float32), "b": np.array([9], np.uint8)})]
    rollout = build(observations=observations, cuts=cuts)
    assert rollout.observations["b"][1, 2, 0].item() == 10
    assert rollout.final_observations["b"].tolist() == [[9]]
    assert rollout.final_observations["b"].dtype == th.uint8
    joined = concatenate([rollout, rollout])
    assert joined.observations["a"].shape == (4, 3, 2, 2)
    assert joined.final_observations["a"].shape == (2, 2)


def test_concatenate_pads_the_shorter_wave_at_the_end():
    short, long = build(n_steps=2), build(n_steps=3)
    joined = concatenate([short, long])
    assert joined.rewards.shape == (4, 3, 2)
    assert th.equal(joined.rewards[:2, :2], short.rewards)
    assert th.equal(joined.rewards[2:], long.rewards)
    assert not joined.mask[:2, 2].any()
    assert joined.mask[:2, :2].all()
    assert joined.mask[2:].all()
    assert concatenate([long]) is long
