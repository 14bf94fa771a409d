"""The sampling term of the hypergradient on support data, Eq. (A6)."""

import torch as th

from sb3_bomrl.core.distances import STATE_DISTANCES
from sb3_bomrl.core.hypergradient import (
    score_function_sampling_term,
)
from sb3_bomrl.meta.lower_level import LowerLevel
from sb3_bomrl.rollout.estimation import linear_features
from sb3_bomrl.types import Params, Rollout


def sampling_term(
    lower: LowerLevel,
    support: Rollout,
    meta_params: Params,
    adapted_params: Params,
    gamma: float,
    direction: Params,
    baseline_is_fitted: bool = False,
) -> Params:
    r"""
    Compute part (b) of the mixed derivative on support data, Eq. (A6), with the visitation of the distance.

    :param lower: the lower level on every step of the support data
    :param support: the same data with their time axis
    :param meta_params: φ, each of shape (n_tasks, \*shape)
    :param adapted_params: θ', same shapes
    :param gamma: discount factor in [0, 1]
    :param direction: x of Eq. (A3), same shapes
    :param baseline_is_fitted: whether the advantages' baseline was fitted to ``support``, linear in
        :func:`~sb3_bomrl.rollout.estimation.linear_features`, and so moves with φ
    :return: [part (b)]ᵀ x, same shapes
    """
    shape, device = support.rewards.shape, lower.batch.weights.device

    def log_prob(params: Params) -> th.Tensor:
        return lower.policy(params).log_prob(lower.batch.actions).reshape(shape)

    def state_distance(params: Params) -> th.Tensor:
        return lower.state_distance(params, meta_params).reshape(shape)

    features = None
    if baseline_is_fitted:
        features = linear_features(lower.actor.policy.observation_space, lower.batch.observations)
        features = features.reshape(*shape, -1) * support.mask.to(device)[..., None]
    return score_function_sampling_term(
        log_prob,
        adapted_params,
        meta_params,
        direction,
        lower.surrogate,
        lower.batch.advantages.reshape(shape),
        lower.batch.weights.reshape(shape),
        support.episode_starts.to(device),
        support.episode_ends.to(device),
        gamma,
        lower.reg_coef,
        state_distance if lower.distance in STATE_DISTANCES else None,
        features,
    )
