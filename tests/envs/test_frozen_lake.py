"""The Frozen Lake families as Gymnasium environments."""

import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium.utils.env_checker import check_env as check_gymnasium_env
from stable_baselines3.common.env_checker import check_env as check_sb3_env

from sb3_bomrl.envs import register_envs
from sb3_bomrl.envs.frozen_lake import FrozenLakeHighVarianceEnv, FrozenLakeLowVarianceEnv, LakeTasks
from sb3_bomrl.tabular import FiniteMDP, expected_return, lake_mdp, optimal_policy

ENVS = [FrozenLakeHighVarianceEnv, FrozenLakeLowVarianceEnv]
LEFT, DOWN, RIGHT, UP = range(4)
HOLES = ("SFFF", "FHFH", "FFFH", "HFFG")


@pytest.mark.parametrize("env_class", ENVS)
@pytest.mark.parametrize("is_slippery", [False, True])
def test_environment_checkers(env_class, is_slippery):
    env = env_class(is_slippery=is_slippery)
    check_gymnasium_env(env, skip_render_check=True)
    check_sb3_env(env)


@pytest.mark.parametrize("env_id", ["bomrl/FrozenLakeHighVariance-v0", "bomrl/FrozenLakeLowVariance-v0"])
def test_registered_env_truncates_after_49_steps_and_never_terminates(env_id):
    register_envs()
    env = gym.make(env_id)
    env.reset(seed=0)
    ends = [env.step(env.action_space.sample())[2:4] for _ in range(49)]
    assert ends == [(False, False)] * 48 + [(False, True)]
    env.close()


def test_goal_pays_every_step_and_absorbs():
    env = FrozenLakeHighVarianceEnv(task=HOLES)
    env.reset(seed=0)
    path = [DOWN, DOWN, RIGHT, DOWN, RIGHT, RIGHT]
    steps = [env.step(action) for action in [*path, LEFT, UP, RIGHT]]
    assert [int(step[0]) for step in steps] == [4, 8, 9, 13, 14, 15, 15, 15, 15]
    assert [step[1] for step in steps] == [0.0] * 5 + [1.0] * 4


def test_hole_pays_every_step_and_absorbs():
    env = FrozenLakeHighVarianceEnv(task=HOLES)
    env.reset(seed=0)
    steps = [env.step(action) for action in [RIGHT, DOWN, RIGHT, UP]]
    assert [(int(step[0]), step[1]) for step in steps] == [(1, 0.0), (5, -1.0), (5, -1.0), (5, -1.0)]


def test_penalty_cell_does_not_absorb():
    env = FrozenLakeLowVarianceEnv(task=("SPFF", "FFFF", "FFFF", "FFFG"), penalty=-0.25)
    env.reset(seed=0)
    steps = [env.step(action) for action in [RIGHT, UP, RIGHT]]
    assert [(int(step[0]), step[1]) for step in steps] == [(1, -0.25), (1, -0.25), (2, 0.0)]


def test_walls_hold():
    env = FrozenLakeHighVarianceEnv(task=HOLES)
    env.reset(seed=0)
    assert [int(env.step(action)[0]) for action in (LEFT, UP)] == [0, 0]


def test_tasks():
    env = FrozenLakeHighVarianceEnv()
    env.seed_tasks(3)
    tasks = env.sample_tasks(20)
    assert len(set(tasks)) == 20
    assert not set(tasks) & set(env.test_tasks)
    assert len(env.test_tasks) == 20
    env.seed_tasks(3)
    assert env.sample_tasks(20) == tasks
    env.set_task(list(HOLES))
    assert env.get_task() == HOLES
    assert env.reset(seed=0)[1]["task"] == env.step(0)[4]["task"] == HOLES
    counts = [env.sample_tasks(40).count(task) for task in tasks]
    assert counts == [2] * 20


def test_training_maps_depend_on_map_seed_only():
    first, again, other = LakeTasks("high_variance"), LakeTasks("high_variance"), LakeTasks("high_variance", map_seed=1)
    assert first.train_tasks == again.train_tasks
    assert first.train_tasks != other.train_tasks


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (3, "tuple of 4 row strings"),
        ("SFFFFHFHFFFHHFFG", "tuple of 4 row strings"),
        (("SFG",), "size 4x4"),
        (("SFFF", "FFFF", "FFFF", "FFXG"), "made of S, F, H, P and G"),
        (("SFFF", "FFFF", "FFFF", "FFFF"), "one start S and a goal G"),
        (("FFFF", "FFFF", "FFFF", "FFFG"), "one start S and a goal G"),
    ],
)
def test_bad_tasks_are_named(task, message):
    with pytest.raises(ValueError, match=message):
        FrozenLakeHighVarianceEnv().set_task(task)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="horizon"):
        FrozenLakeHighVarianceEnv(horizon=0)
    with pytest.raises(ValueError, match="n_tasks"):
        FrozenLakeHighVarianceEnv(n_train_tasks=0)
    with pytest.raises(ValueError, match="render_mode"):
        FrozenLakeHighVarianceEnv(render_mode="human")


@pytest.mark.parametrize("env_class", ENVS)
@pytest.mark.parametrize("is_slippery", [False, True])
def test_from_env_is_the_lake_mdp(env_class, is_slippery):
    env = env_class(is_slippery=is_slippery)
    env.set_task(env.test_tasks[0])
    from_env, tables = FiniteMDP.from_env(env), lake_mdp([env.get_task()], is_slippery=is_slippery)[0]
    assert from_env.gamma == 0.8
    th.testing.assert_close(from_env.transition, tables.transition, rtol=0, atol=1e-15)
    th.testing.assert_close(from_env.reward, tables.reward, rtol=0, atol=1e-15)
    assert th.equal(from_env.initial, tables.initial)


@pytest.mark.parametrize("is_slippery", [False, True])
def test_mean_discounted_return_of_episodes_is_the_exact_one(is_slippery):
    """Monte Carlo in the environment against the linear solve; horizon 49 leaves 0.8^49 / 0.2 < 1e-4 of the return."""
    env = FrozenLakeHighVarianceEnv(is_slippery=is_slippery, task=HOLES)
    mdp = FiniteMDP.from_env(env)
    policy = 0.8 * optimal_policy(mdp)[0] + 0.05
    rng = np.random.default_rng(0)
    env.reset(seed=0)
    returns = []
    for _ in range(400):
        state, _ = env.reset()
        rewards = []
        for _ in range(49):
            state, reward, *_ = env.step(rng.choice(4, p=policy[state].numpy()))
            rewards.append(reward)
        returns.append(np.sum(0.8 ** np.arange(49) * rewards))
    error = np.std(returns) / np.sqrt(len(returns))
    assert abs(np.mean(returns) - expected_return(mdp, policy).item()) < 4 * error + 1e-4


def test_slips_are_seeded_and_uniform():
    env = FrozenLakeHighVarianceEnv(is_slippery=True, task=("SFFF", "FFFF", "FFFF", "FFFG"))

    def episode(seed: int) -> list[int]:
        env.reset(seed=seed)
        return [int(env.step(RIGHT)[0]) for _ in range(20)]

    assert episode(5) == episode(5)
    first_moves = [episode(seed)[0] for seed in range(120)]
    counts = np.array([first_moves.count(cell) for cell in (4, 1, 0)])  # down, right, up (wall)
    assert counts.sum() == 120
    assert np.all(np.abs(counts - 40) < 4 * np.sqrt(120 * 2 / 9))


def test_render_and_pickle():
    env = FrozenLakeHighVarianceEnv(render_mode="ansi", task=HOLES)
    env.reset(seed=0)
    env.step(RIGHT)
    assert env.render() == " S [F] F  F \n F  H  F  H \n F  F  F  H \n H  F  F  G "
    copy = pickle.loads(pickle.dumps(env))
    assert int(copy.step(RIGHT)[0]) == int(env.step(RIGHT)[0]) == 2
