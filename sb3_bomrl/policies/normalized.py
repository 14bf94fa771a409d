"""The policies of ``"MlpPolicy"`` and ``"MultiInputPolicy"``: SB3's, with observations standardised."""

from typing import Any

from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy, MultiInputActorCriticPolicy
from stable_baselines3.common.type_aliases import Schedule

from sb3_bomrl.policies.extractors import (
    NormalizedCombinedExtractor,
    NormalizedFlattenExtractor,
    is_standardizable,
)

LOG_STD_INIT = -0.5
"""Of Gaussian actions at the start, in place of SB3's 0: most of those are clipped by the usual action spaces."""


class NormalizedMlpPolicy(ActorCriticPolicy):
    """
    SB3's ``ActorCriticPolicy``; its features extractor is :class:`NormalizedFlattenExtractor` unless another is given.

    Observations that are no vector of numbers, such as ``Discrete`` ones and images, are not standardised. The standard
    deviation of Gaussian actions starts at exp(−0.5).

    :param observation_space: observation space
    :param action_space: action space
    :param lr_schedule: learning rate schedule
    :param kwargs: further arguments of :class:`~stable_baselines3.common.policies.ActorCriticPolicy`;
        ``features_extractor_class=FlattenExtractor`` leaves observations as they are
    """

    def __init__(
        self, observation_space: spaces.Space, action_space: spaces.Space, lr_schedule: Schedule, **kwargs: Any
    ) -> None:
        if is_standardizable(observation_space):
            kwargs.setdefault("features_extractor_class", NormalizedFlattenExtractor)
        kwargs.setdefault("log_std_init", LOG_STD_INIT)
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)


class NormalizedMultiInputPolicy(MultiInputActorCriticPolicy):
    """
    SB3's ``MultiInputActorCriticPolicy``; its features extractor is :class:`NormalizedCombinedExtractor` unless another
    is given, and the standard deviation of Gaussian actions starts at exp(−0.5).

    :param observation_space: a ``Dict``
    :param action_space: action space
    :param lr_schedule: learning rate schedule
    :param kwargs: further arguments of :class:`~stable_baselines3.common.policies.MultiInputActorCriticPolicy`;
        ``features_extractor_class=CombinedExtractor`` leaves observations as they are
    """

    def __init__(
        self, observation_space: spaces.Dict, action_space: spaces.Space, lr_schedule: Schedule, **kwargs: Any
    ) -> None:
        kwargs.setdefault("features_extractor_class", NormalizedCombinedExtractor)
        kwargs.setdefault("log_std_init", LOG_STD_INIT)
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)
