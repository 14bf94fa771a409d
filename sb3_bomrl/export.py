"""Export of policies to ONNX and TorchScript, for use without this package."""

import io
import warnings
from pathlib import Path
from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.vec_env import VecTransposeImage, is_vecenv_wrapped

from sb3_bomrl.algorithms.meta_algorithm import MetaAlgorithm
from sb3_bomrl.saving.files import write_atomically
from sb3_bomrl.saving.normalizer import normalizer_statistics, normalizes_observations


class ExportedPolicy(th.nn.Module):
    """
    Module that returns the most probable action, as ``model.predict(observation, deterministic=True)`` does.

    :param model: a meta-policy, or an adapted model
    :raises ValueError: if the observation space is a ``Dict``, observations are normalised by ``VecNormalize``, or they
        are images and the model has no environment that says where their channels are
    """

    low: th.Tensor
    high: th.Tensor

    def __init__(self, model: MetaAlgorithm) -> None:
        super().__init__()
        if isinstance(model.observation_space, spaces.Dict):
            raise ValueError("model must have an observation space other than Dict to be exported")
        if normalizes_observations(
            normalizer_statistics(model.get_vec_normalize_env()) or model._normalizer_statistics
        ):
            raise ValueError(
                "model must normalise its observations itself to be exported, by NormalizedFlattenExtractor: this one "
                "was trained with VecNormalize"
            )
        self.is_channel_last = _is_channel_last(model)
        model.policy.set_training_mode(False)
        self.module, self.preprocess = model.actor.module, model.actor.preprocess_flat
        self.space = model.action_space
        if isinstance(self.space, spaces.Box):
            self.register_buffer("low", th.as_tensor(self.space.low, device=model.device))
            self.register_buffer("high", th.as_tensor(self.space.high, device=model.device))

    def forward(self, observation: th.Tensor) -> th.Tensor:
        """
        Return the most probable action.

        :param observation: (n_samples, \\*obs_shape), as the environment returns it, images with the channels last
            where it has them there
        :return: (n_samples, \\*action_shape)
        """
        if self.is_channel_last:
            observation = observation.permute(0, 3, 1, 2)
        outputs = self.module(self.preprocess(observation))[0].detach()
        if isinstance(self.space, spaces.Box):
            return th.minimum(th.maximum(outputs.reshape(-1, *self.space.shape), self.low), self.high)
        if isinstance(self.space, spaces.MultiDiscrete):
            parts = outputs.split(self.space.nvec.tolist(), dim=1)
            return th.stack([part.argmax(1) for part in parts], dim=1)
        return (outputs > 0).to(outputs.dtype) if isinstance(self.space, spaces.MultiBinary) else outputs.argmax(1)


def _is_channel_last(model: MetaAlgorithm) -> bool:
    """True for images that the environment gives with the channels last, and SB3 turns for the model."""
    space = model.observation_space
    if not (isinstance(space, spaces.Box) and is_image_space(space) and is_image_space_channels_first(space)):
        return False
    if model.env is None:
        raise ValueError("model must have an environment for images to be exported, got None: load it with env=...")
    return is_vecenv_wrapped(model.env, VecTransposeImage)


def _example(model: MetaAlgorithm) -> th.Tensor:
    """A batch of two observations, as the environment returns them."""
    sample = model.observation_space.sample()
    batch = model.policy.obs_to_tensor(sample)[0].repeat(2, *[1] * len(model.observation_space.shape or ()))  # type: ignore[union-attr]
    return batch.permute(0, 2, 3, 1) if _is_channel_last(model) else batch


def export_torchscript(model: MetaAlgorithm, path: str | Path) -> None:
    """
    Write a policy as TorchScript; ``torch.jit.load(path)(observations)`` returns actions.

    :param model: a meta-policy, or an adapted model
    :param path: the file
    :raises ValueError: as :class:`ExportedPolicy`
    """
    policy, buffer = ExportedPolicy(model), io.BytesIO()
    with warnings.catch_warnings(), th.no_grad():
        warnings.simplefilter("ignore")  # torch's own: deprecation, and constants of the trace
        th.jit.save(th.jit.trace(policy, _example(model)), buffer)
    write_atomically(Path(path), lambda file: file.write(buffer.getvalue()))


def export_onnx(model: MetaAlgorithm, path: str | Path) -> None:
    """
    Write a policy as ONNX, with input ``observation`` and output ``action``, both with a free first axis.

    :param model: a meta-policy, or an adapted model
    :param path: the file
    :raises ValueError: as :class:`ExportedPolicy`
    :raises ImportError: if the packages of the extra ``export`` are missing
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(f"{error}: run `pip install 'sb3-bomrl[export]'`") from error
    policy = ExportedPolicy(model)
    with warnings.catch_warnings(), th.no_grad():
        warnings.simplefilter("ignore")
        program: Any = th.onnx.export(
            policy,
            (_example(model),),
            input_names=["observation"],
            output_names=["action"],
            dynamic_shapes=({0: th.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
    write_atomically(Path(path), lambda file: file.write(program.model_proto.SerializeToString()))
