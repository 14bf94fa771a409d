"""Exported policies act as the model does."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_bomrl import BOMRL
from sb3_bomrl.export import export_onnx, export_torchscript
from sb3_bomrl.policies import NormalizedFlattenExtractor

BOX = spaces.Box(-0.5, 0.5, (3,), np.float32)
CASES = [
    (BOX, BOX, "MlpPolicy", {"features_extractor_class": NormalizedFlattenExtractor}),
    (BOX, spaces.Discrete(4), "MlpPolicy", {}),
    (spaces.Discrete(5), spaces.Discrete(3), "TabularPolicy", {}),
    (spaces.MultiBinary(4), spaces.MultiDiscrete([2, 3]), "MlpPolicy", {}),
]


def make_model(observed, acted, policy, policy_kwargs, wrap=lambda env: env):
    class Env(gym.Env):
        observation_space, action_space = observed, acted

        def reset(self, *, seed=None, options=None):
            return self.observation_space.sample(), {}

    env = wrap(DummyVecEnv([Env] * 2))
    model = BOMRL(policy, env, n_steps=4, meta_batch_size=2, policy_kwargs=policy_kwargs, seed=0, device="cpu")
    with th.no_grad():
        for value in model.policy.parameters():
            value.add_(th.randn(value.shape))  # so that actions differ, and some are clipped
    return model


@pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{type(case[0]).__name__}-{type(case[1]).__name__}")
def test_exported_policies_act_as_the_model(tmp_path, case):
    onnxruntime = pytest.importorskip("onnxruntime")
    model = make_model(*case)
    observations = np.stack([model.observation_space.sample() for _ in range(50)])
    expected, _ = model.predict(observations, deterministic=True)
    assert len(np.unique(expected, axis=0)) > 1

    export_torchscript(model, tmp_path / "policy.pt")
    script = th.jit.load(tmp_path / "policy.pt")
    np.testing.assert_allclose(script(th.as_tensor(observations)).numpy(), expected, rtol=1e-5, atol=1e-5)

    export_onnx(model, tmp_path / "policy.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "policy.onnx"), providers=["CPUExecutionProvider"])
    for n in (1, 50):
        actions = session.run(["action"], {"observation": observations[:n]})[0]
        np.testing.assert_allclose(actions, expected[:n], rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("shape", [(36, 40, 3), (3, 36, 40)])
def test_images_keep_the_environments_layout(tmp_path, shape):
    space = spaces.Box(0, 255, shape, np.uint8)
    model = make_model(space, spaces.Discrete(4), "CnnPolicy", {"features_extractor_kwargs": {"features_dim": 8}})
    observations = np.stack([space.sample() for _ in range(5)])
    expected, _ = model.predict(observations, deterministic=True)
    export_torchscript(model, tmp_path / "policy.pt")
    np.testing.assert_array_equal(th.jit.load(tmp_path / "policy.pt")(th.as_tensor(observations)).numpy(), expected)
    onnxruntime = pytest.importorskip("onnxruntime")
    export_onnx(model, tmp_path / "policy.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "policy.onnx"), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(["action"], {"observation": observations})[0], expected)
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match="model must have an environment for images to be exported, got None"):
        export_torchscript(BOMRL.load(tmp_path / "model"), tmp_path / "policy.pt")


def test_what_cannot_be_exported_is_refused(tmp_path):
    nested = spaces.Dict({"a": BOX})
    with pytest.raises(ValueError, match="other than Dict"):
        export_torchscript(make_model(nested, BOX, "MultiInputPolicy", {}), tmp_path / "policy.pt")
    with pytest.raises(ValueError, match="trained with VecNormalize"):
        export_onnx(make_model(BOX, BOX, "MlpPolicy", {}, VecNormalize), tmp_path / "policy.onnx")
    assert not list(tmp_path.iterdir())
