"""Statistics of the observations, kept in the policy."""

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor

from sb3_bomrl.policies.batch_norm import update_batch_norms
from sb3_bomrl.types import Observations


class NormalizedFlattenExtractor(BaseFeaturesExtractor):
    """
    Flatten the observation and standardise it by running statistics that are part of the policy.

    The statistics are buffers: they are saved, loaded and copied with the policy, so an adapted model needs no
    ``VecNormalize`` beside it. Meta-algorithms update them once per meta-iteration, between iterations, so that all
    data of one iteration are seen through the same statistics.

    :param observation_space: a ``Box``
    :param clip: standardised observations are clipped to [−clip, clip]
    :param epsilon: added to the variance
    :raises ValueError: if the observation space is not a ``Box``
    """

    mean: th.Tensor
    var: th.Tensor
    count: th.Tensor

    def __init__(self, observation_space: spaces.Space, clip: float = 5.0, epsilon: float = 1e-8) -> None:
        if not isinstance(observation_space, spaces.Box):
            raise ValueError(f"observation_space must be a Box, got {observation_space}")
        dim = int(np.prod(observation_space.shape))
        super().__init__(observation_space, dim)
        self.clip, self.epsilon = clip, epsilon
        self.register_buffer("mean", th.zeros(dim))
        self.register_buffer("var", th.ones(dim))
        self.register_buffer("count", th.tensor(0.0, dtype=th.double))

    def forward(self, observations: th.Tensor) -> th.Tensor:
        """
        Standardise observations.

        :param observations: (n_samples, \\*obs_shape)
        :return: (n_samples, obs_dim)
        """
        scaled = (observations.flatten(1) - self.mean) / (self.var + self.epsilon).sqrt()
        return scaled.clamp(-self.clip, self.clip)

    @th.no_grad()
    def update(self, observations: th.Tensor) -> None:
        """
        Fold observations into the running mean and variance (Chan, Golub and LeVeque, 1979).

        :param observations: (n_samples, \\*obs_shape)
        """
        x = observations.flatten(1).to(self.mean.device).double()
        n_new = float(len(x))
        if n_new == 0:
            return
        total = self.count + n_new
        delta = x.mean(0) - self.mean
        second = (
            self.var.double() * self.count + x.var(0, unbiased=False) * n_new + delta**2 * self.count * n_new / total
        )
        self.mean.add_((delta * n_new / total).to(self.mean.dtype))
        self.var.copy_((second / total).to(self.var.dtype))
        self.count.copy_(total)


class NormalizedCombinedExtractor(CombinedExtractor):
    """
    SB3's ``CombinedExtractor``, with a :class:`NormalizedFlattenExtractor` for every vector of numbers.

    :param observation_space: a ``Dict``
    :param cnn_output_dim: features of each image
    :param normalized_image: images are in [0, 1] already
    """

    def __init__(
        self, observation_space: spaces.Dict, cnn_output_dim: int = 256, normalized_image: bool = False
    ) -> None:
        super().__init__(observation_space, cnn_output_dim, normalized_image)
        for key, subspace in observation_space.spaces.items():
            if is_standardizable(subspace):
                self.extractors[key] = NormalizedFlattenExtractor(subspace)


def is_standardizable(space: spaces.Space) -> bool:
    """
    Return whether observations are vectors of numbers.

    :param space: observation space
    :return: true for a ``Box`` that is no image
    """
    return isinstance(space, spaces.Box) and not is_image_space(space)


def update_normalizers(policy: ActorCriticPolicy, observations: Observations) -> None:
    r"""
    Fold observations into every :class:`NormalizedFlattenExtractor` of a policy, and into its batch normalisation.

    :param policy: any policy; nothing happens if it has neither
    :param observations: (..., \*obs_shape), or a dictionary of such
    """
    seen: set[NormalizedFlattenExtractor] = set()
    for module in policy.modules():
        if isinstance(module, NormalizedCombinedExtractor):
            assert isinstance(observations, dict)
            for key, part in module.extractors.items():
                if isinstance(part, NormalizedFlattenExtractor):
                    part.update(observations[key].reshape(-1, part.features_dim))
                    seen.add(part)
        elif isinstance(module, NormalizedFlattenExtractor) and module not in seen:
            assert isinstance(observations, th.Tensor)
            module.update(observations.reshape(-1, module.features_dim))
    update_batch_norms(policy, observations)
