"""The small families against Gymnasium's own environments, and against closed forms."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_sb3

from sb3_bomrl import TaskObservationWrapper
from sb3_bomrl.envs import ENV_IDS, DrawnTasks, register_envs
from sb3_bomrl.envs.hidden_goals import GRID_TEST_GOALS, GRID_TRAIN_GOALS
from sb3_bomrl.envs.registry import ARRAY_VEC_ENV, ENVS

register_envs()
IDS = [env_id for env_id in ENV_IDS if ENVS[env_id].vec_env == ARRAY_VEC_ENV]


def set_pendulum(env, task):
    env.m, env.l, env.g = task


CLASSIC = {
    "bomrl/CartPoleForce-v0": ("CartPole-v1", lambda env, task: setattr(env, "force_mag", task), 1e-9),
    "bomrl/PendulumParams-v0": ("Pendulum-v1", set_pendulum, 1e-9),
    "bomrl/AcrobotTorque-v0": (
        "Acrobot-v1",
        lambda env, task: setattr(env, "AVAIL_TORQUE", [-task, 0.0, task]),
        1e-9,
    ),
    # Gymnasium's car keeps its state in single precision
    "bomrl/MountainCarPower-v0": (
        "MountainCarContinuous-v0",
        lambda env, task: setattr(env, "power", task),
        1e-6,
    ),
}


def state_of(env):
    return env.unwrapped._rows._states[0].copy()


@pytest.mark.parametrize("env_id", CLASSIC)
def test_every_step_is_gymnasiums(env_id):
    base, apply_task, tolerance = CLASSIC[env_id]
    ours, theirs = gym.make(env_id).unwrapped, gym.make(base).unwrapped
    assert (ours.observation_space, ours.action_space) == (theirs.observation_space, theirs.action_space)
    rng, n_terminated = np.random.default_rng(0), 0
    tasks = ours.test_tasks + ours.sample_tasks(3)
    for number, task in enumerate([None, *tasks]):  # first the default task, where nothing is applied
        if number:
            ours.set_task(task), apply_task(theirs, task)
        for seed in (number, None):
            np.testing.assert_array_equal(ours.reset(seed=seed)[0], theirs.reset(seed=seed)[0])
            for _ in range(60):
                action = 1.2 * rng.uniform(-2, 2, 1) if base == "Pendulum-v1" else ours.action_space.sample()
                theirs.state = state_of(ours)
                obs, reward, terminated, *_ = ours.step(action)
                their_obs, their_reward, their_terminated, *_ = theirs.step(action)
                np.testing.assert_allclose(state_of(ours), theirs.state, rtol=0, atol=tolerance)
                np.testing.assert_allclose(obs, their_obs, rtol=0, atol=1e-6)
                assert reward == pytest.approx(their_reward, abs=tolerance)
                assert terminated == their_terminated
                n_terminated += terminated
                if terminated:
                    break
    assert n_terminated >= 15 or base != "CartPole-v1"


@pytest.mark.parametrize(
    ("env_id", "state", "action"),
    [
        ("bomrl/AcrobotTorque-v0", [np.pi - 0.3, 0.1, 0.5, 0.4], 1),
        ("bomrl/MountainCarPower-v0", [0.449, 0.02], np.ones(1, np.float32)),
    ],
)
def test_goals_are_gymnasiums(env_id, state, action):
    ours, theirs = gym.make(env_id).unwrapped, gym.make(CLASSIC[env_id][0]).unwrapped
    ours.reset(seed=0), theirs.reset(seed=0)
    ours._rows._states[0] = theirs.state = np.array(state)
    _, reward, terminated, *_ = ours.step(action)
    _, their_reward, their_terminated, *_ = theirs.step(action)
    assert terminated
    assert their_terminated
    assert reward == pytest.approx(their_reward, abs=1e-6)


def test_the_wall_of_the_mountain_car_is_gymnasiums():
    ours, theirs = gym.make("bomrl/MountainCarPower-v0").unwrapped, gym.make("MountainCarContinuous-v0").unwrapped
    ours.reset(seed=0), theirs.reset(seed=0)
    ours._rows._states[0] = theirs.state = np.array([-1.19, -0.05])
    np.testing.assert_allclose(ours.step(-np.ones(1))[0], theirs.step(-np.ones(1))[0])
    np.testing.assert_allclose(state_of(ours), [-1.2, 0.0])


@pytest.mark.parametrize("env_id", IDS)
def test_check_env_is_silent(env_id):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*infinity. This is probably too", UserWarning)  # CartPole-v1's box
        warnings.filterwarnings("ignore", ".*symmetric and normalized", UserWarning)  # Pendulum-v1's torque
        check_env(gym.make(env_id).unwrapped)
        check_env_sb3(gym.make(env_id))


@pytest.mark.parametrize("env_id", IDS)
def test_tasks(env_id):
    env = gym.make(env_id).unwrapped
    env.seed_tasks(0)
    drawn = env.sample_tasks(50)
    env.seed_tasks(0)
    assert env.sample_tasks(50) == drawn
    assert not set(drawn) & set(env.test_tasks)
    assert len(set(drawn)) > 10
    for task in (*env.test_tasks, *drawn[:3]):
        env.set_task(np.array(task))
        assert env.get_task() == task
        assert type(env.get_task()) is type(task)
    env.reset(seed=1)
    assert env.get_task() == drawn[2]
    for refused in ("x", None, [1.0], np.nan, (0.0, np.inf), {}):
        with pytest.raises(ValueError, match="task must be"):
            env.set_task(refused)
    assert env.step(env.action_space.sample())[-1]["task"] == drawn[2]


@pytest.mark.parametrize("env_id", IDS)
def test_the_task_decides_the_rewards_or_the_dynamics_and_is_not_observed(env_id):
    env, traces, firsts = gym.make(env_id).unwrapped, [], []
    for task in env.test_tasks[:2]:
        env.set_task(task)
        env.action_space.seed(0)
        firsts.append(env.reset(seed=0)[0])
        traces.append([str(env.step(env.action_space.sample())[:3]) for _ in range(20)])
    assert traces[0] != traces[1] or env_id == "bomrl/GridGoal-v0"  # a walk that meets neither goal
    assert str(firsts[0]) == str(firsts[1])


@pytest.mark.parametrize("env_id", IDS)
def test_oracles_see_the_task(env_id):
    env = gym.make(env_id)
    oracle = TaskObservationWrapper(gym.make(env_id))
    own, _ = env.reset(seed=0)
    obs, info = oracle.reset(seed=0)
    numbers = np.ravel(info["task"])
    np.testing.assert_allclose(obs[-len(numbers) :], numbers, rtol=1e-6)
    assert oracle.observation_space.contains(obs)
    flat = gym.spaces.flatten(env.observation_space, own)
    np.testing.assert_allclose(obs[: -len(numbers)], flat)
    oracle.unwrapped.set_task(env.unwrapped.test_tasks[0])
    seen = oracle.step(oracle.action_space.sample())[0][-len(numbers) :]
    np.testing.assert_allclose(seen, np.ravel(env.unwrapped.test_tasks[0]), rtol=1e-6)


@pytest.mark.parametrize(
    ("env_id", "task", "words"),
    [
        ("bomrl/CartPoleForce-v0", True, r"a finite number \(the force in newtons\), got True"),
        ("bomrl/PendulumParams-v0", (0.0, 1.0, 10.0), "3 finite numbers .*mass and length, above 0"),
        ("bomrl/GridGoal-v0", 12, r"an integer \(the goal's cell, 0 to 24 but for the start, 12\), got 12"),
        ("bomrl/GridGoal-v0", 25, ".* got 25"),
        ("bomrl/GridGoal-v0", 3.0, ".* got 3.0"),
        ("bomrl/ReachGoal-v0", (0.1, 0.2, 0.3), r"2 finite numbers \(the goal's x and y\)"),
    ],
)
def test_errors_of_tasks_say_what_is_accepted(env_id, task, words):
    with pytest.raises(ValueError, match=f"task must be {words}"):
        gym.make(env_id, task=task)


def test_drawn_tasks_check_their_own():
    with pytest.raises(ValueError, match=r"task must be a finite number \(a gain\), got 'high'"):
        DrawnTasks(lambda rng: 1.0, 1.0, ["high"], "a gain")
    with pytest.raises(ValueError, match=r"task must be 2 integers \(a cell\), got \(0.5, 1\)"):
        DrawnTasks(lambda rng: (0.5, 1), (0, 0), [(1, 1)], "a cell").sample(np.random.default_rng(0), 1)


def test_the_grids_goals_are_all_cells_but_the_start():
    assert sorted((*GRID_TRAIN_GOALS, *GRID_TEST_GOALS)) == [cell for cell in range(25) if cell != 12]


@pytest.mark.parametrize("goal", range(25))
def test_best_return_on_the_grid(goal):
    """The shortest way has as many steps as rows and columns lie between."""
    if goal == 12:
        return
    env = gym.make("bomrl/GridGoal-v0", task=goal)
    cell, _ = env.reset()
    total, terminated, n_steps = 0.0, False, 0
    while not terminated:
        row, column = divmod(int(cell), 5)
        by_row = 0 if goal // 5 < row else 1
        action = by_row if row != goal // 5 else (2 if goal % 5 < column else 3)
        cell, reward, terminated, *_ = env.step(action)
        total, n_steps = total + reward, n_steps + 1
    assert n_steps == abs(goal // 5 - 2) + abs(goal % 5 - 2)
    assert total == pytest.approx(1.0 - 0.05 * n_steps)


def test_walls_of_the_grid():
    env = gym.make("bomrl/GridGoal-v0", task=3)
    env.reset()
    assert [int(env.step(2)[0]) for _ in range(4)] == [11, 10, 10, 10]
    assert [int(env.step(1)[0]) for _ in range(3)] == [15, 20, 20]


@pytest.mark.parametrize("number", range(6))
def test_the_arm_reaches_every_test_goal(number):
    """By the law of cosines the elbow's angle gives the tip's radius."""
    env = gym.make("bomrl/ReachGoal-v0").unwrapped
    goal = np.array(env.test_tasks[number])
    env.set_task(env.test_tasks[number])
    env.reset(seed=number)
    elbow = np.arccos(np.sum(goal**2) / 0.5 - 1.0)
    angles = np.array([np.arctan2(goal[1], goal[0]) - elbow / 2.0, elbow])
    for _ in range(env.horizon):
        offset = (angles - state_of(env) + np.pi) % (2.0 * np.pi) - np.pi
        _, reward, terminated, truncated, _ = env.step(offset / 0.2)
        assert not terminated
    assert truncated
    assert reward == pytest.approx(0.0, abs=1e-9)


def test_the_point_mass_moves_as_its_closed_form():
    """Under full force v_k = 2 (1 - 0.9^k), whose sum is the distance; the wall then stops it."""
    env = gym.make("bomrl/PointMassGoal-v0", task=(2.0, 0.5)).unwrapped
    env.reset()
    for k in range(1, 16):
        obs, reward, *_ = env.step(np.array([5.0, 0.0]))
        x = 0.1 * np.sum(2.0 * (1.0 - 0.9 ** np.arange(1, k + 1)))
        np.testing.assert_allclose(obs["velocity"], [2.0 * (1.0 - 0.9**k), 0.0], rtol=1e-6)
        np.testing.assert_allclose(obs["position"], [x, 0.0], rtol=1e-6)
        assert reward == pytest.approx(-np.hypot(2.0 - x, 0.5))
    for _ in range(20):
        obs, reward, *_ = env.step(np.array([1.0, 0.0]))
    np.testing.assert_array_equal(obs["position"], [2.0, 0.0])
    np.testing.assert_array_equal(obs["velocity"], [0.0, 0.0])
    assert reward == -0.5


@pytest.mark.parametrize("env_id", IDS)
def test_horizon_and_registration(env_id):
    assert gym.spec(env_id).max_episode_steps == gym.make(env_id).unwrapped.horizon
    env = gym.make(env_id, horizon=3)
    env.reset(seed=0)
    assert [env.step(env.action_space.sample())[3] for _ in range(3)] == [False, False, True]
    with pytest.raises(ValueError, match="horizon must be an integer of at least 1, or None, got 0"):
        gym.make(env_id, horizon=0)
