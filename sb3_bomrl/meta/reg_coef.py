"""The weights of the lower level: λ, found from how far adaptation goes, and κ, that of its ridge."""

from collections.abc import Callable

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_action_dim

from sb3_bomrl.types import Batch

KL_PER_DIMENSION = 0.05
"""Target of a continuous action, in nats per dimension."""

KL_PER_CHOICE = 0.25
"""Target of a discrete action, in nats per choice."""

_MAX_SOLVES = 10
_CLOSE = 1.2
_LARGEST_CHANGE = 1.3


def default_target_kl(space: spaces.Space) -> float:
    """
    Return how far the median task should adapt.

    The KL of independent actions is the sum of theirs, so the target grows with their number.

    :param space: action space
    :return: mean KL(π_φ ‖ π_θ'), in nats
    """
    return get_action_dim(space) * (KL_PER_DIMENSION if isinstance(space, spaces.Box) else KL_PER_CHOICE)


def default_ridge_coef(space: spaces.Space) -> float:
    """
    Return the weight κ of ‖θ − φ‖².

    :param space: action space
    :return: 0.1 for continuous actions, and 1 for discrete ones
    """
    return 0.1 if isinstance(space, spaces.Box) else 1.0


def calibrated_reg_coef(kl_at: Callable[[float], th.Tensor], batch: Batch, target_kl: float) -> float:
    """
    Find the λ at which the median task adapts by the target.

    Started from the scale of the advantages, so that any scale of rewards will do; the KL falls about as 1 / λ².

    :param kl_at: λ -> KL(π_φ ‖ π_θ') of every task, (n_tasks,)
    :param batch: the data that are adapted to
    :param target_kl: in nats
    :return: λ > 0; that of the scale of the advantages where no task adapts at all
    """
    square = (batch.weights * batch.advantages.square()).sum(1).mean()
    reg_coef = 0.3 * max(float(square.sqrt()), th.finfo(square.dtype).tiny ** 0.25)
    for _ in range(_MAX_SOLVES):
        ratio = _distance_from(target_kl, kl_at(reg_coef))
        if 1 / _CLOSE < ratio < _CLOSE:
            break
        reg_coef *= float(np.clip(ratio, 1e-3, 1e3)) ** 0.6
    return reg_coef


def next_reg_coef(reg_coef: float, kl: th.Tensor, target_kl: float) -> float:
    """
    Move λ towards the one at which the median task adapts by the target.

    :param reg_coef: λ of the last meta-iteration
    :param kl: KL(π_φ ‖ π_θ') of every task with it, (n_tasks,)
    :param target_kl: in nats
    :return: λ, changed by a factor of at most 1.3
    """
    change = _distance_from(target_kl, kl) ** 0.5
    return reg_coef * float(np.clip(change, 1 / _LARGEST_CHANGE, _LARGEST_CHANGE))


def _distance_from(target_kl: float, kl: th.Tensor) -> float:
    """The median of the tasks that adapt at all, as a multiple of the target; 1 if there is none."""
    moved = kl[kl > 0]
    return float(moved.median()) / target_kl if len(moved) else 1.0
