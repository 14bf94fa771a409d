"""Step sizes that change while training."""

import inspect

import numpy as np
import pytest
from stable_baselines3.common.utils import LinearSchedule

from sb3_bomrl import BOMRL, Reptile


def test_step_sizes_follow_schedules(tiny):
    seen = []
    schedules = {"inner_lr": 1e-2, "max_kl": 0.1, "clip_range": 0.2}
    model = tiny.model(surrogate="clip", **{name: LinearSchedule(x, x / 10, 1.0) for name, x in schedules.items()})
    original = model._inner_solver
    model._inner_solver = lambda: seen.append(original().learning_rate) or original()
    constant = tiny.model(surrogate="clip", **schedules)
    tiny.assert_equal(tiny.params(model.learn(tiny.iteration)), tiny.params(constant.learn(tiny.iteration)))
    assert set(seen) == {1e-2}
    model.learn(tiny.iteration, reset_num_timesteps=False)
    assert min(seen) == pytest.approx(5.5e-3)
    model._current_progress_remaining = 0.0
    model.inner_lr = LinearSchedule(1e-2, 0.0, 1.0)
    with pytest.raises(ValueError, match=r"inner_lr must be above 0, got 0\.0 from LinearSchedule"):
        model.adapt(np.zeros(2), n_episodes=2)


def schedules_of(algorithm, end):
    """Every step size of an algorithm as a number, and as a schedule from that number to ``end`` times it."""
    numbers = {
        "inner_lr": 1e-2,
        "max_kl": 0.1,
        "clip_range": 0.2,
        "target_kl": 0.01,
        "interpolation": 0.5,
        "reg_coef": 5.0,
    }
    chosen = {name: numbers[name] for name in algorithm.scheduled}
    return chosen, {name: LinearSchedule(value, end * value, 1.0) for name, value in chosen.items()}


def iteration_of(tiny, algorithm):
    return tiny.iteration_of(tiny.model(cls=algorithm))


def test_every_step_size_of_every_algorithm_may_be_a_schedule(tiny, algorithm, tmp_path):
    numbers, schedules = schedules_of(algorithm, 0.1)
    assert set(numbers) <= set(inspect.signature(algorithm.__init__).parameters)
    assert "inner_lr" in numbers
    kwargs = {"surrogate": "clip"} if algorithm is BOMRL else {}
    model, by_hand, constant = (
        tiny.model(cls=algorithm, **kwargs, **sizes).learn(n * iteration_of(tiny, algorithm))
        for sizes, n in ((schedules, 2), (numbers, 1), (numbers, 2))
    )
    for name, schedule in schedules.items():  # what it is in the second meta-iteration
        setattr(by_hand, name, schedule(0.5))
    by_hand.learn(iteration_of(tiny, algorithm), reset_num_timesteps=False)
    tiny.assert_equal(tiny.params(model), tiny.params(by_hand))
    assert getattr(model, "kl_coefs", None) == getattr(by_hand, "kl_coefs", None)
    assert tiny.differ(tiny.params(model), tiny.params(constant))
    for name, value in numbers.items():
        assert model._now(name) == pytest.approx(0.1 * value)
    model.save(tmp_path / "model")
    loaded = algorithm.load_safely(tmp_path / "model", env=tiny.goal_vec())
    tiny.assert_equal(*(tiny.params(m.adapt(np.zeros(2), n_episodes=2, seed=1)) for m in (model, loaded)))


def test_a_step_size_that_is_no_number_above_0_is_named(tiny, algorithm):
    for name in algorithm.scheduled:
        for value in (0.0, "lin_0.1", None):
            with pytest.raises(ValueError, match=f"{name} must be a finite number above 0, got {value!r}"):
                tiny.model(cls=algorithm, **{name: value})
    _, schedules = schedules_of(algorithm, 0.0)
    model = tiny.model(cls=algorithm, inner_lr=schedules["inner_lr"]).learn(1)
    assert model._current_progress_remaining < 0  # what was played after the only meta-iteration had begun
    with pytest.raises(ValueError, match=r"inner_lr must be above 0, got .* from LinearSchedule.* ends above 0"):
        model.adapt(np.zeros(2), n_episodes=2)
    model.inner_lr = lambda left: 0.1 + left
    assert model._now("inner_lr") == 0.1


def test_reptile_does_not_go_beyond_the_adapted_policies(tiny):
    model = tiny.model(cls=Reptile, interpolation=lambda left: 1.5)
    before = tiny.params(model)
    with pytest.raises(ValueError, match=r"interpolation must be a number in \[0, 1\], got 1\.5"):
        model.learn(1)
    tiny.assert_equal(tiny.params(model), before)


@pytest.mark.parametrize("value", [None, "0.1", float("nan"), [0.1]])
def test_what_a_schedule_returns_is_checked(tiny, value):
    model = tiny.model(max_kl=lambda progress: value)
    with pytest.raises(ValueError, match="max_kl must be above 0, got"):
        model.learn(1)
