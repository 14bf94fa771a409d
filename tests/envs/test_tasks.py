"""Task distributions and the task convention."""

import numpy as np
import pytest

from sb3_bomrl.envs.frozen_lake import LakeTasks
from sb3_bomrl.envs.navigation import Navigation2DEnv
from sb3_bomrl.envs.tasks import AngleTasks, DirectionTasks, IntervalTasks, SquareTasks


def test_velocities_are_uniform_over_the_range():
    draws = np.array(IntervalTasks((0.0, 2.0)).sample(np.random.default_rng(0), 4000))
    counts, _ = np.histogram(draws, bins=4, range=(0.0, 2.0))
    assert counts.sum() == 4000
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(4000 * 0.25 * 0.75)


@pytest.mark.parametrize(("high", "last"), [(2.0, 1.9), (3.0, 2.9)])
def test_held_out_velocities_are_those_of_the_protocol(high, last):
    expected = [round(0.1 * k, 10) for k in range(1, round(last * 10) + 1)]
    assert IntervalTasks((0.0, high)).test_tasks == expected


@pytest.mark.parametrize("n_tasks", [1, 2, 5, 20])
def test_directions_are_balanced_and_each_draw_is_uniform(n_tasks):
    rng = np.random.default_rng(1)
    draws = np.array([DirectionTasks().sample(rng, n_tasks) for _ in range(2000)])
    assert set(np.unique(draws)) == {-1, 1}
    assert np.abs(draws.sum(axis=1)).max() == n_tasks % 2
    assert np.abs(draws.mean(axis=0)).max() < 5 / np.sqrt(2000)


def test_goals_fill_the_square_and_the_grid_its_corners():
    tasks = SquareTasks(0.5)
    draws = np.array(tasks.sample(np.random.default_rng(2), 4000))
    assert np.abs(draws).max() <= 0.5
    np.testing.assert_allclose(draws.mean(axis=0), 0.0, atol=5 * 0.289 / np.sqrt(4000))
    np.testing.assert_allclose(draws.std(axis=0), 1 / np.sqrt(12), atol=0.02)
    assert len(set(tasks.test_tasks)) == 25
    assert {(x, y) for x in (-0.5, 0.5) for y in (-0.5, 0.5)} <= set(tasks.test_tasks)


def test_angles_go_all_the_way_round():
    tasks = AngleTasks()
    draws = np.array(tasks.sample(np.random.default_rng(3), 4000))
    assert 0.0 <= draws.min() < 0.01
    assert 2 * np.pi - 0.01 < draws.max() < 2 * np.pi
    assert abs(np.exp(1j * draws).mean()) < 5 / np.sqrt(4000)
    np.testing.assert_allclose(np.diff(tasks.test_tasks), np.pi / 8)
    assert abs(np.exp(1j * np.array(tasks.test_tasks)).sum()) < 1e-12
    with pytest.raises(ValueError, match=r"task must be a finite number \(the direction in radians\), got 'left'"):
        tasks.check("left")


@pytest.mark.parametrize(
    ("tasks", "given", "canonical"),
    [
        (AngleTasks(), np.float32(0.5), 0.5),
        (IntervalTasks((0, 2)), np.float32(0.5), 0.5),
        (IntervalTasks((0, 2)), 3, 3.0),
        (DirectionTasks(), -1.0, -1),
        (DirectionTasks(), np.int64(1), 1),
        (SquareTasks(), np.array([0.25, 1.0]), (0.25, 1.0)),
    ],
)
def test_tasks_become_plain_objects(tasks, given, canonical):
    task = tasks.check(given)
    assert task == canonical
    assert type(task) is type(canonical)


@pytest.mark.parametrize("tasks", [IntervalTasks((0, 2)), DirectionTasks(), SquareTasks()])
@pytest.mark.parametrize("task", [None, "fast", True, [], float("nan"), [1.0, 2.0, 3.0], (np.inf, 0.0)])
def test_what_is_no_task_is_refused(tasks, task):
    with pytest.raises(ValueError, match=r"task must be .*, got"):
        tasks.check(task)


def test_zero_is_no_direction():
    with pytest.raises(ValueError, match=r"-1 or \+1 \(the direction\), got 0"):
        DirectionTasks().check(0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: IntervalTasks((1.0, 1.0)), r"goal_range .* with low < high, got \(1.0, 1.0\)"),
        (lambda: IntervalTasks((0.0, float("inf"))), "goal_range must be two finite numbers"),
        (lambda: IntervalTasks(3), r"goal_range must be two finite numbers \(low, high\) .* got 3"),
        (lambda: SquareTasks(0.0), "goal_half_width must be a finite number above 0, got 0.0"),
        (lambda: Navigation2DEnv(horizon=0), "horizon must be an integer of at least 1, got 0"),
        (lambda: Navigation2DEnv(horizon=2.5), "horizon must be an integer of at least 1, got 2.5"),
        (lambda: LakeTasks("high_variance", n_train_tasks=0), "n_train_tasks must be an integer of at least 1, got 0"),
    ],
)
def test_bad_families_are_explained(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_task_seeds():
    one, two = Navigation2DEnv(), Navigation2DEnv()
    one.seed_tasks(3), two.seed_tasks(3)
    one.reset(seed=0), two.reset(seed=1)  # do not matter once the tasks are seeded
    first = one.sample_tasks(4)
    assert first == two.sample_tasks(4)
    one.seed_tasks(4)
    assert one.sample_tasks(4) != first


def test_unseeded_tasks_follow_the_seed_of_the_reset():
    one, two = Navigation2DEnv(), Navigation2DEnv()
    assert one.sample_tasks(2) != two.sample_tasks(2)
    one.reset(seed=5), two.reset(seed=5)
    assert one.sample_tasks(2) == two.sample_tasks(2)
    one.reset()  # without a seed the stream goes on
    assert one.sample_tasks(2) == two.sample_tasks(2)


def test_the_tasks_do_not_repeat_the_environments_own_numbers():
    env = Navigation2DEnv()
    env.seed_tasks(5)
    env.reset(seed=5)
    assert env.sample_tasks(1)[0] != tuple(env.np_random.uniform(-0.5, 0.5, size=2))


def test_sampling_leaves_the_task_alone():
    env = Navigation2DEnv(task=(0.1, 0.2))
    env.sample_tasks(3)
    env.reset(seed=0)
    assert env.get_task() == (0.1, 0.2)
