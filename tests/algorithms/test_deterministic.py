"""The same seed gives the same bits."""

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.utils import set_random_seed

from sb3_bomrl import make_meta_vec_env

SETTINGS = [
    {},
    {"outer_step": "adam", "baseline": "value_net", "learning_rate": 1e-2},
    {"hypergradient": "implicit_sampling"},
]


class Disturb(BaseCallback):
    """Uses and reseeds every global generator."""

    def _on_step(self):
        set_random_seed(self.n_calls)
        th.rand(3)
        np.random.rand(3)  # noqa: NPY002
        self.model.action_space.sample()
        return True


def train(tiny, seed=0, callback=None, n_iterations=3, env=None, **kwargs):
    model = tiny.model(env if env is not None else tiny.goal_vec(4), seed=seed, **kwargs)
    return tiny.params(model.learn(n_iterations * tiny.iteration_of(model), callback=callback))


@pytest.mark.parametrize("kwargs", SETTINGS)
def test_the_seed_decides_everything(tiny, kwargs):
    first = train(tiny, **kwargs)
    np.random.seed(99)  # noqa: NPY002
    tiny.assert_equal(train(tiny, **kwargs), first)
    assert tiny.differ(train(tiny, seed=1, **kwargs), first)


def test_all_algorithms_repeat(tiny, algorithm):
    first = train(tiny, cls=algorithm)
    np.random.seed(99)  # noqa: NPY002
    tiny.assert_equal(train(tiny, cls=algorithm, callback=Disturb()), first)
    assert tiny.differ(train(tiny, seed=1, cls=algorithm), first)


@pytest.mark.parametrize("kwargs", SETTINGS)
def test_what_callbacks_do_to_global_generators_changes_nothing(tiny, kwargs):
    tiny.assert_equal(train(tiny, callback=Disturb(), **kwargs), train(tiny, **kwargs))


def test_an_evaluation_in_between_changes_nothing(tiny):
    callback = EvalCallback(tiny.goal_vec(1), n_eval_episodes=2, eval_freq=7, deterministic=False, verbose=0)
    tiny.assert_equal(train(tiny, callback=callback), train(tiny))
    assert len(callback.evaluations_timesteps) == 0  # no log path
    assert callback.last_mean_reward > -np.inf


@pytest.mark.parametrize("env_id", ["bomrl/Navigation2D-v0", "bomrl/FrozenLakeHighVariance-v0"])
def test_families_of_the_package_repeat(tiny, env_id):
    policy = "MlpPolicy" if "Nav" in env_id else "TabularPolicy"

    def run(seed):
        return train(tiny, seed, env=make_meta_vec_env(env_id, 4), n_iterations=2, policy=policy, reg_coef=5.0)

    tiny.assert_equal(run(0), run(0))
    assert tiny.differ(run(0), run(1))


def test_the_tasks_follow_the_seed(tiny):
    def tasks(seed):
        env = make_meta_vec_env("bomrl/Navigation2D-v0", 4)
        seen = []
        tiny.model(env, seed=seed).learn(
            2 * tiny.iteration, callback=lambda local, _: seen.append(local["tasks"]) or True
        )
        return [seen[0], seen[-1]]

    first, second = tasks(0)
    assert first != second
    assert tasks(0) == [first, second]
    assert tasks(1)[0] != first


def test_set_random_seed_starts_over(tiny):
    runs = []
    for _ in range(2):
        model = tiny.model(seed=None)
        model.policy.load_state_dict({k: th.zeros_like(v) for k, v in model.policy.state_dict().items()})
        model.set_random_seed(5)
        runs.append(tiny.params(model.learn(tiny.iteration)))
    tiny.assert_equal(*runs)


def test_predict_deterministic_repeats(tiny):
    model = tiny.model()
    obs = np.zeros((4, 2), dtype=np.float32)
    np.testing.assert_array_equal(model.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])
