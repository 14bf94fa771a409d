"""What is saved comes back whole, and what ``save`` accepts is not refused by ``load_safely``."""

import io
import json
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_bomrl import BOMRL, make_meta_vec_env
from sb3_bomrl.saving.safe_json import decode, encode
from tests.saving.archives import saved

SPACES = [
    spaces.MultiDiscrete([3, 4], dtype=np.int32),
    spaces.MultiDiscrete([3, 4], start=[1, -1]),
    spaces.MultiDiscrete(np.array([[2, 3], [4, 5]])),
    spaces.Discrete(np.int32(3), start=np.int64(-2)),
    spaces.Box(-1.0, 1.0, (2,), np.float64),
    spaces.Box(-1.0, 1.0, (), np.float16),
    spaces.Box(0, 255, (2, 3), np.uint8),
    spaces.Box(np.float32([-np.inf, 0.0]), np.float32([1.0, np.inf])),
    spaces.MultiBinary([2, 3]),
    spaces.Dict([("z", spaces.MultiDiscrete([2], dtype=np.uint8)), ("a", spaces.Discrete(3, start=1))]),
]
if "dtype" in gym.spaces.Discrete.__init__.__annotations__:  # since Gymnasium 1.2
    SPACES.append(spaces.Discrete(3, dtype=np.int32))


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_spaces_are_equal(space):
    again = decode(json.loads(json.dumps(encode(space))))
    assert again == space
    assert (again.dtype, again.shape) == (space.dtype, space.shape)
    if isinstance(space, spaces.Dict):
        assert list(again.spaces) == list(space.spaces)
        assert all(again[key].dtype == space[key].dtype for key in space)


@pytest.mark.parametrize("space", [SPACES[0], SPACES[3], SPACES[-1]], ids=str)
def test_a_model_loads_into_its_own_environment(tiny, space):
    def env():
        return DummyVecEnv([lambda: tiny.SpaceEnv(observation_space=space)] * 4)

    data = io.BytesIO(saved(tiny.model(env())))
    for load in (BOMRL.load, BOMRL.load_safely):
        assert load(data, env=env()).observation_space == space


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_steps", np.int64(10)),
        ("reg_coef", np.float32(5.0)),
        ("reg_coef", np.float64(5.0)),
        ("line_search", np.bool_(False)),
        ("verbose", True),
        ("tensorboard_log", Path("runs")),
        ("policy_kwargs", {"net_arch": [np.int64(8)], "log_std_init": np.float32(-1.0)}),
    ],
)
def test_numbers_of_numpy_and_paths(tiny, tmp_path, monkeypatch, name, value):
    monkeypatch.chdir(tmp_path)
    data = io.BytesIO(saved(tiny.model(**{name: value}).learn(1)))
    for load in (BOMRL.load, BOMRL.load_safely):
        loaded = load(data, **({"tensorboard_log": str(value)} if name == "tensorboard_log" else {}))
        assert getattr(loaded, name) == (str(value) if isinstance(value, Path) else value)


class Velocity:
    """A task that only pickle can save."""

    def __repr__(self):
        return "Velocity()"


def test_tasks_in_the_statistics_of_episodes(tiny):
    class Told(tiny.GoalEnv):
        def step(self, action):
            *step, info = super().step(action)
            return *step, {**info, "task": Velocity(), "goal": self.task, "name": "goal"}

    env = DummyVecEnv([lambda: Monitor(Told(), info_keywords=("task", "goal", "name"))] * 4)
    model = tiny.model(env).learn(1)
    assert len(model.ep_info_buffer) > 0
    loaded = BOMRL.load_safely(io.BytesIO(saved(model)))
    for one, again in zip(model.ep_info_buffer, loaded.ep_info_buffer, strict=True):
        assert again.keys() == one.keys() - {"task"}
        assert (again["r"], again["l"], again["name"]) == (one["r"], one["l"], "goal")
        np.testing.assert_array_equal(again["goal"], one["goal"])
    assert loaded.ep_info_buffer.maxlen == model.ep_info_buffer.maxlen


def test_episodes_keep_the_type_of_their_numbers(tiny, tmp_path):
    """A mean of single-precision returns is not that of the same returns in double precision."""
    env = make_meta_vec_env("bomrl/Navigation2D-v0", 4, seed=0, env_kwargs={"horizon": 5})
    model = tiny.model(env).learn(tiny.iteration)
    model.save(tmp_path / "model")
    saved = [(type(episode["r"]), episode["r"]) for episode in model.ep_info_buffer]
    assert {kind for kind, _ in saved} == {np.float32}
    for trusted in (False, True):
        loaded = BOMRL.load(tmp_path / "model", trusted=trusted, device="cpu")
        assert [(type(episode["r"]), episode["r"]) for episode in loaded.ep_info_buffer] == saved
