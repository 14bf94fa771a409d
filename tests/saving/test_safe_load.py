"""Safe loading: what is right is the saved model, and nothing is unpickled on the way."""

import inspect
import io
import itertools
import json
import pickle
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_bomrl import BOMRL, EMAML, FOMAML, MAML, ProMP, Reptile
from sb3_bomrl.policies import NormalizedFlattenExtractor, NormalizedMlpPolicy
from sb3_bomrl.saving.safe_json import NotEncodableError, decode, encode
from tests.saving.archives import Evil, members_of, saved

OLD = Path(__file__).parents[1] / "data" / "bomrl_before_safe_settings.zip"
"""A policy that was saved before files held their settings without pickle."""
BASELINES = (MAML, FOMAML, EMAML, ProMP, Reptile)
DICT = spaces.Dict({"a": spaces.Box(-1.0, 1.0, (2,)), "b": spaces.Discrete(3)})
CASES = {
    "box": {},
    "schedule": {"learning_rate": LinearSchedule(1e-2, 1e-3, 0.5), "baseline": "value_net"},
    "extractor": {"policy_kwargs": {"net_arch": [8], "features_extractor_class": NormalizedFlattenExtractor}},
    "activation": {
        "policy_kwargs": {
            "net_arch": {"pi": [8], "vf": [4]},
            "activation_fn": th.nn.ELU,
            "optimizer_class": th.optim.SGD,
        }
    },
    "dict": {"observation_space": DICT, "policy": "MultiInputPolicy"},
    "discrete": {"action_space": spaces.Discrete(3)},
    "multi": {"observation_space": spaces.MultiBinary(3), "action_space": spaces.MultiDiscrete([2, 3])},
    "binary": {"observation_space": spaces.MultiDiscrete([4, 2]), "action_space": spaces.MultiBinary(4)},
    "table": {"observation_space": spaces.Discrete(5), "action_space": spaces.Discrete(2), "policy": "TabularPolicy"},
    "normalized": {"normalize": True},
}


@pytest.mark.parametrize(
    ("algorithm", "case"),
    [*((BOMRL, case) for case in CASES), *itertools.product(BASELINES, ("schedule", "table", "normalized"))],
)
def test_a_safe_load_is_the_saved_model(tiny, algorithm, monkeypatch, case):
    kwargs = dict(CASES[case])
    env_kwargs = {name: kwargs.pop(name) for name in ("observation_space", "action_space") if name in kwargs}
    normalize = kwargs.pop("normalize", False)

    def env():
        inner = DummyVecEnv([lambda: tiny.SpaceEnv(**env_kwargs)] * 4)
        return VecNormalize(inner) if normalize else inner

    model = tiny.model(env(), cls=algorithm, **kwargs).learn(1)
    data = saved(model)
    monkeypatch.setattr(cloudpickle, "loads", lambda *_: pytest.fail("unpickled"))
    monkeypatch.setattr(pickle, "loads", lambda *_: pytest.fail("unpickled"))
    runs = []
    for trusted in (False, True):
        loaded = algorithm.load(io.BytesIO(data), env=env(), trusted=trusted)
        tiny.assert_equal(tiny.params(loaded), tiny.params(model))
        for name in json.loads(members_of(data)["data"]):
            if name not in ("start_time", "lr_schedule", "task_generator", "learning_rate", "_last_obs"):
                np.testing.assert_equal(getattr(loaded, name), getattr(model, name), err_msg=name)
        for progress in (1.0, 0.7, 0.0):
            assert loaded.lr_schedule(progress) == model.lr_schedule(progress)
        if case in ("box", "normalized"):
            runs.append(tiny.params(loaded.learn(1, reset_num_timesteps=False)))
    for run in runs:
        tiny.assert_equal(run, runs[0])


# a value of its own for every number that an algorithm may have
CHOSEN = {
    "max_kl": 0.03,
    "gamma": 0.9,
    "gae_lambda": 0.8,
    "inner_lr": 0.07,
    "clip_range": 0.25,
    "interpolation": 0.5,
    "credit_coef": 0.5,
    "inner_lr_decay": 0.25,
    "inner_max_kl": 2.5,
    "trust_region": "meta",
    "target_kl": 0.02,
    "init_kl_coef": 0.1,
    "reg_coef": 7.0,
    "max_grad_norm": 0.4,
}


def test_every_argument_comes_back(tiny, algorithm, tmp_path):
    known = set(inspect.signature(algorithm.__init__).parameters)
    model = tiny.model(cls=algorithm, **{name: value for name, value in CHOSEN.items() if name in known}).learn(1)
    model.save(tmp_path / "model")
    for load in (algorithm.load, algorithm.load_safely):
        loaded = load(tmp_path / "model", device="cpu")
        for name in known - {"self", "policy", "env", "device", "_init_setup_model", "stats_window_size"}:
            value = getattr(loaded, name)
            assert value == getattr(model, name), name
            assert name not in CHOSEN or value == CHOSEN[name], name
        tiny.assert_equal(tiny.params(loaded), tiny.params(model))
        assert str(loaded.policy.optimizer.state_dict()) == str(model.policy.optimizer.state_dict())


def test_a_cnn_policy_loads_safely():
    class Image(make_image_env()):
        pass

    model = BOMRL("CnnPolicy", DummyVecEnv([Image] * 2), n_steps=4, meta_batch_size=2, seed=0, device="cpu")
    loaded = BOMRL.load_safely(io.BytesIO(saved(model)))
    for a, b in zip(model.policy.parameters(), loaded.policy.parameters(), strict=True):
        assert th.equal(a, b)


def make_image_env():
    import gymnasium as gym

    class ImageEnv(gym.Env):
        observation_space = spaces.Box(0, 255, (36, 36, 1), np.uint8)
        action_space = spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            return self.observation_space.sample(), {}

    return ImageEnv


def test_plain_sb3_still_reads_the_file(tiny):
    model = tiny.model(outer_step="adam").learn(tiny.iteration)
    data = saved(model)
    loaded = OnPolicyAlgorithm.load.__func__(BOMRL, io.BytesIO(data))
    tiny.assert_equal(tiny.params(loaded), tiny.params(model))
    assert loaded.task_generator.bit_generator.state == model.task_generator.bit_generator.state
    values, parts, _ = load_from_zip_file(io.BytesIO(data))
    assert values["policy_class"] is NormalizedMlpPolicy
    assert set(parts) == {"policy", "policy.optimizer"}


def test_a_file_of_an_older_version_loads_and_is_refused_safely(tiny):
    old = BOMRL.load(OLD, device="cpu")
    assert old.num_timesteps == 8_000_000
    with pytest.raises(ValueError, match=r"only unpickling could load: .*'policy_class'.* trusted=True"):
        BOMRL.load_safely(OLD)
    again = BOMRL.load_safely(io.BytesIO(saved(old)), device="cpu")
    tiny.assert_equal(tiny.params(old), tiny.params(again))


def test_what_only_pickle_can_save_is_named(tiny):
    class MyPolicy(ActorCriticPolicy):
        pass

    model = tiny.model(policy=MyPolicy, learning_rate=lambda progress: 1e-3 * progress)
    with pytest.warns(UserWarning, match=r"only pickle can save .*policy_class \(.*MyPolicy\)") as caught:
        data = saved(model)
    message = str(caught[0].message)
    assert "learning_rate (" in message
    assert "lr_schedule" in message
    assert "observation_space" not in message
    assert BOMRL.load(io.BytesIO(data)).lr_schedule(0.5) == 5e-4
    with pytest.raises(ValueError, match=r"unpickling could load: 'learning_rate', 'lr_schedule', 'policy_class'"):
        BOMRL.load_safely(io.BytesIO(data))
    objects = {"policy_class": MyPolicy, "learning_rate": 1e-3, "lr_schedule": None}
    loaded = BOMRL.load_safely(io.BytesIO(data), custom_objects=objects)
    assert type(loaded.policy) is MyPolicy
    tiny.assert_equal(tiny.params(loaded), tiny.params(model))


def test_a_log_folder_is_not_taken_from_a_stranger(tiny, tmp_path):
    data = saved(tiny.model(tensorboard_log=str(tmp_path)))
    assert BOMRL.load(io.BytesIO(data)).tensorboard_log == str(tmp_path)
    assert BOMRL.load_safely(io.BytesIO(data)).tensorboard_log is None
    assert BOMRL.load_safely(io.BytesIO(data), tensorboard_log="runs").tensorboard_log == "runs"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda x: st.lists(x) | st.tuples(x, x) | st.dictionaries(st.text() | st.integers(), x),
)


@settings(deadline=None, max_examples=100)
@given(VALUES)
def test_encoded_values_come_back(value):
    assert decode(json.loads(json.dumps(encode(value)))) == value


@pytest.mark.parametrize(
    "space", [spaces.Discrete(3, start=-2), spaces.MultiDiscrete([2, 3]), spaces.MultiBinary([2, 3]), DICT]
)
def test_encoded_spaces_come_back(space):
    assert decode(json.loads(json.dumps(encode(space)))) == space


@pytest.mark.parametrize(
    "value", [lambda: 0, object(), {1, 2}, np.array([object()]), Evil, [Evil("x")], open, th.zeros(2)]
)
def test_other_values_are_not_encoded(value):
    with pytest.raises(NotEncodableError):
        encode(value)
