"""The batch under SB3's wrappers, against SB3's own VecEnv under the same ones."""

import sys
import types

import numpy as np
import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecCheckNan, VecFrameStack, VecNormalize, VecVideoRecorder

from sb3_bomrl import BOMRL
from sb3_bomrl.vec_env import MujocoTaskVecEnv, make_meta_vec_env

pytest.importorskip("mujoco")
IDS = ["bomrl/AntDir-v0", "bomrl/Walker2dRandParams-v0", "bomrl/HopperRandParams-v0"]


def make(env_id, backend="auto", n_envs=2, **kwargs):
    return make_meta_vec_env(env_id, n_envs, backend, seed=0, env_kwargs={"horizon": 8, **kwargs})


WRAPPERS = {
    "VecNormalize": VecNormalize,
    "VecFrameStack": lambda venv: VecFrameStack(venv, 3),
    "VecCheckNan": lambda venv: VecCheckNan(venv, raise_exception=True),
    "all": lambda venv: VecCheckNan(VecFrameStack(VecNormalize(venv), 2), raise_exception=True),
}


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers_see_what_they_see_of_dummy_vec_envs(env_id, wrapper):
    fast, slow = (WRAPPERS[wrapper](make(env_id, backend)) for backend in ("auto", "dummy"))
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(fast.reset(), slow.reset())
    for _ in range(20):
        actions = rng.uniform(-1, 1, size=(2, *fast.action_space.shape)).astype(np.float32)
        (obs, rewards, dones, infos), (*theirs, their_infos) = fast.step(actions), slow.step(actions)
        for ours, their in zip((obs, rewards, dones), theirs, strict=True):
            np.testing.assert_array_equal(ours, their)
        for info, their_info in zip(infos, their_infos, strict=True):
            if "terminal_observation" in their_info:
                np.testing.assert_array_equal(info["terminal_observation"], their_info["terminal_observation"])
                assert info["episode"]["r"] == pytest.approx(their_info["episode"]["r"], abs=1e-4)
                assert info["episode"]["l"] == their_info["episode"]["l"]


@pytest.mark.parametrize("env_id", IDS)
def test_policies_are_evaluated_as_in_dummy_vec_envs(env_id):
    fast, slow = make(env_id), make(env_id, "dummy")
    model = PPO("MlpPolicy", fast, n_steps=8, batch_size=8, n_epochs=1, device="cpu", seed=0)
    fast.seed(0)
    results = [evaluate_policy(model, venv, n_eval_episodes=6, return_episode_rewards=True) for venv in (fast, slow)]
    assert results[0][1] == results[1][1]
    np.testing.assert_allclose(results[0][0], results[1][0], atol=1e-4)


@pytest.mark.parametrize("env_id", IDS[1:])
def test_bomrl_takes_the_batch_by_default(env_id):
    model = BOMRL("MlpPolicy", env_id, n_steps=8, meta_batch_size=2, policy_kwargs={"net_arch": [8]}, seed=0)
    assert type(model.env.unwrapped) is MujocoTaskVecEnv
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    model.learn(1)
    assert model.num_timesteps > 0
    assert any((before[name] != value).any() for name, value in model.policy.state_dict().items())
    task = model.env.get_attr("test_tasks", 0)[0][0]
    adapted = model.adapt(task, n_episodes=2)
    assert adapted.predict(model.env.reset())[0].shape == (model.env.num_envs, *model.action_space.shape)
    model.env.close()


def test_videos_are_recorded(tmp_path, monkeypatch):
    """Without a screen and without ffmpeg: the renderer and the encoder are stand-ins, the frames are checked."""
    written = []

    class Clip:
        def __init__(self, frames, fps):
            self.frames, self.fps = frames, fps

        def write_videofile(self, path, logger=None):
            written.append((path, np.array(self.frames), self.fps))

    moviepy, editor = types.ModuleType("moviepy"), types.ModuleType("moviepy.video.io.ImageSequenceClip")
    editor.ImageSequenceClip = Clip
    for name in ("moviepy.video", "moviepy.video.io"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "moviepy", moviepy)
    monkeypatch.setitem(sys.modules, "moviepy.video.io.ImageSequenceClip", editor)

    def draw(env):
        return np.full((8, 8, 3), int(1000 * abs(env.data.qpos[1])) % 256, dtype=np.uint8)

    monkeypatch.setattr("gymnasium.envs.mujoco.mujoco_env.MujocoEnv.render", draw)
    venv = make("bomrl/HopperRandParams-v0", render_mode="rgb_array", width=8, height=8)
    video = VecVideoRecorder(venv, str(tmp_path), lambda step: step == 0, video_length=4)
    video.reset()
    for _ in range(6):
        video.step(np.zeros((2, 3), dtype=np.float32))
    ((path, frames, fps),) = written
    assert path.startswith(str(tmp_path))
    assert frames.shape[1:] == (16, 8, 3)
    assert fps == 125 == venv.get_attr("metadata")[1]["render_fps"]
    assert len(np.unique(frames)) > 1
