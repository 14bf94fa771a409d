"""Batch normalisation in policies, and samples of observations."""

import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from sb3_bomrl.types import Observations, map_observations, observation_parts


def _batch_norms(policy: nn.Module) -> list[tuple[str, nn.modules.batchnorm._BatchNorm]]:
    return [(name, part) for name, part in policy.named_modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]


def check_batch_norms(policy: nn.Module) -> None:
    """
    Require that the action distribution at an observation depends on no other observation.

    :param policy: any policy
    :raises ValueError: if it has batch normalisation without running statistics, which uses those of the batch
    """
    for name, norm in _batch_norms(policy):
        if not norm.track_running_stats:
            raise ValueError(
                f"batch normalisation must have track_running_stats=True, got False in the policy's {name!r}: actions "
                "would depend on the observations that are evaluated together"
            )


@th.no_grad()
def update_batch_norms(policy: ActorCriticPolicy, observations: Observations, n_at_once: int = 4096) -> None:
    r"""
    Move the running statistics of batch normalisation towards those of some observations.

    Policies act and learn in evaluation mode, with fixed statistics, so that an action distribution is a function of
    the observation and the parameters.

    :param policy: any policy; nothing happens if it has no batch normalisation
    :param observations: (..., \*obs_shape), or a dictionary of such
    :param n_at_once: observations per step of the statistics; a remainder of a single one is left out
    """
    norms = [norm for _, norm in _batch_norms(policy)]
    if not norms:
        return
    flat = _one_axis(observations, policy.observation_space)
    n_samples = len(observation_parts(flat)[0])
    for norm in norms:
        norm.train()
    try:
        for indices in th.arange(n_samples).split(n_at_once):
            if len(indices) > 1:
                policy(take_samples(flat, indices, policy.device), deterministic=True)
    finally:
        for norm in norms:
            norm.eval()


def _one_axis(observations: Observations, space: spaces.Space) -> Observations:
    return map_observations(lambda x, part: x.reshape(-1, *(part.shape or ())), observations, space)


def take_samples(observations: Observations, indices: th.Tensor, device: th.device) -> Observations:
    """
    Take some of the observations to a device.

    :param observations: (n_samples, ...), or a dictionary of such
    :param indices: (n_indices,) of the samples
    :param device: where to
    :return: (n_indices, ...), or a dictionary of such
    """
    return map_observations(lambda x: x[indices].to(device), observations)
