"""Step sizes that change while training."""

import numpy as np
import pytest
from stable_baselines3.common.utils import LinearSchedule


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
