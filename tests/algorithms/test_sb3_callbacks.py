"""SB3's own callbacks with every algorithm: those that look, save, log, and stop."""

import numpy as np
import pytest
from stable_baselines3.common.callbacks import (
    CallbackList,
    CheckpointCallback,
    ConvertCallback,
    EvalCallback,
    EveryNTimesteps,
    LogEveryNTimesteps,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv


def test_those_that_watch(tiny, algorithm, tmp_path):
    """All at once; training goes on as without them."""
    model = tiny.model(cls=algorithm)
    iteration, triggered, evaluated = tiny.iteration_of(model), [], []
    total = 2 * iteration
    evaluate = EvalCallback(
        tiny.goal_vec(1),
        callback_after_eval=ConvertCallback(lambda local, _: evaluated.append(model.num_timesteps) or True),
        n_eval_episodes=1,
        eval_freq=iteration // 8,  # calls: the half of an iteration
        log_path=str(tmp_path),
        verbose=0,
    )
    every = EveryNTimesteps(40, ConvertCallback(lambda local, _: triggered.append(model.num_timesteps) or True))
    checkpoint = CheckpointCallback(iteration // 4, str(tmp_path / "checkpoints"))
    rows = tiny.log_rows(model)
    model.learn(total, callback=CallbackList([evaluate, every, checkpoint, LogEveryNTimesteps(40)]), log_interval=None)

    halves = [k * iteration // 2 for k in (1, 2, 3, 4)]
    assert evaluated == np.load(tmp_path / "evaluations.npz")["timesteps"].tolist() == halves
    assert triggered == list(range(40, total + 1, 40))
    assert [row["time/total_timesteps"] for row in rows if "time/fps" in row] == triggered
    assert [row["time/total_timesteps"] for row in rows if "eval/mean_reward" in row] == halves
    tiny.assert_equal(tiny.params(model), tiny.params(tiny.model(cls=algorithm).learn(total)))
    (first,) = (tmp_path / "checkpoints").glob(f"*_{iteration}_steps.zip")  # in the last step before the update
    tiny.assert_equal(tiny.params(algorithm.load(first)), tiny.params(tiny.model(cls=algorithm)))


def constant_vec(tiny):
    """Where no policy is better than another."""

    class Constant(tiny.GoalEnv):
        def step(self, action):
            obs, _, terminated, truncated, info = super().step(action)
            return obs, 1.0, terminated, truncated, info

    return DummyVecEnv([lambda: Monitor(Constant())])


def evaluating(tiny, **kwargs):
    return EvalCallback(constant_vec(tiny), n_eval_episodes=1, eval_freq=7, verbose=0, **kwargs)


@pytest.mark.parametrize(
    ("make", "calls"),
    [
        (lambda tiny: StopTrainingOnMaxEpisodes(3), 30),  # episodes of ten steps in each environment
        (lambda tiny: evaluating(tiny, callback_on_new_best=StopTrainingOnRewardThreshold(10.0, verbose=0)), 7),
        (lambda tiny: evaluating(tiny, callback_after_eval=StopTrainingOnNoModelImprovement(1)), 21),
    ],
    ids=["episodes", "reward", "improvement"],
)
def test_those_that_stop(tiny, algorithm, make, calls):
    model = tiny.model(cls=algorithm)
    model.learn(10 * tiny.iteration_of(model), callback=make(tiny))
    assert model.num_timesteps == 4 * calls


def test_a_threshold_that_is_not_reached_stops_nothing(tiny):
    stop = StopTrainingOnRewardThreshold(10.5, verbose=0)
    model = tiny.model().learn(2 * tiny.iteration, callback=evaluating(tiny, callback_on_new_best=stop))
    assert model.num_timesteps == 2 * tiny.iteration


@pytest.mark.parametrize("call", [lambda model: model.learn(10), lambda model: model.resume()])
def test_learning_within_learning_is_refused(tiny, call):
    def again(local, _):
        call(local["self"])

    model = tiny.model()
    with pytest.raises(RuntimeError, match=r"learn\(\) must not be called while it runs, as in a callback"):
        model.learn(tiny.iteration, callback=again)
    assert model.learn(tiny.iteration).n_meta_iterations == 1


def test_an_adapted_model_may_learn_within_a_callback(tiny):
    learned = []

    def adapt(local, _):
        if not learned:
            learned.append(local["self"].adapt(tiny.goal_vec(), n_episodes=2).learn(1).n_meta_iterations)
        return True

    tiny.model().learn(tiny.iteration, callback=adapt)
    assert learned == [1]
