"""The policies of ``"MlpPolicy"`` and ``"MultiInputPolicy"``: SB3's, for observations and actions of any scale."""

from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy, MultiInputActorCriticPolicy
from stable_baselines3.common.type_aliases import Schedule

from sb3_bomrl.policies.extractors import (
    NormalizedCombinedExtractor,
    NormalizedFlattenExtractor,
    is_standardizable,
)

STD_OF_RANGE = 0.3
"""Standard deviation of a Gaussian action at the start, as a part of the range of the action."""


class NormalizedMlpPolicy(ActorCriticPolicy):
    """
    SB3's ``ActorCriticPolicy``; its features extractor is :class:`NormalizedFlattenExtractor` unless another is given.

    Observations that are no vector of numbers, such as ``Discrete`` ones and images, are not standardised. The standard
    deviation of a bounded Gaussian action starts at 0.3 times its range unless ``log_std_init`` is given.

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
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)
        if "log_std_init" not in kwargs:
            fit_std_to_range(self)


class NormalizedMultiInputPolicy(NormalizedMlpPolicy, MultiInputActorCriticPolicy):
    """
    SB3's ``MultiInputActorCriticPolicy``; its features extractor is :class:`NormalizedCombinedExtractor` unless another
    is given. The standard deviation of a bounded Gaussian action starts at 0.3 times its range unless ``log_std_init``
    is given.

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
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)


@th.no_grad()
def fit_std_to_range(policy: ActorCriticPolicy) -> None:
    """
    Set the standard deviation of every bounded Gaussian action to 0.3 times its range.

    :param policy: a policy at its start; nothing happens if its actions are not Gaussian
    """
    space = policy.action_space
    log_std = getattr(policy, "log_std", None)
    if not isinstance(space, spaces.Box) or log_std is None:
        return
    width = (space.high.astype(np.float64) - space.low.astype(np.float64)).flatten()
    is_bounded = np.isfinite(width) & (width > 0)
    start = np.log(STD_OF_RANGE * np.where(is_bounded, width, 1 / STD_OF_RANGE))
    log_std.copy_(th.as_tensor(start).to(log_std))
