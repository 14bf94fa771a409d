"""The three distances d²(π_φ, π_θ) of Alg(1), Alg(2) and Alg(3)."""

import torch as th
from torch.distributions import Distribution, kl_divergence

from sb3_bomrl.types import Params

DISTANCES: tuple[str, ...] = ("kl_meta_task", "kl_task_meta", "parameter")


def policy_kl(p: Distribution, q: Distribution, weights: th.Tensor) -> th.Tensor:
    """
    Σ_s ν(s) KL(p(·∣s) ‖ q(·∣s)).

    :param p: batch shape (n_tasks, n_samples)
    :param q: batch shape (n_tasks, n_samples)
    :param weights: (n_tasks, n_samples), the visitation ν
    :return: (n_tasks,) in nats; samples of weight 0 count nothing, even where their divergence is infinite
    """
    return th.where(weights > 0, weights * kl_divergence(p, q), 0.0).sum(-1)


def parameter_distance(meta_params: Params, task_params: Params) -> th.Tensor:
    r"""
    ‖θ − φ‖², Alg(3).

    :param meta_params: φ, each of shape (n_tasks, \*shape)
    :param task_params: θ, same shapes
    :return: (n_tasks,)
    """
    squares = [(task_params[name] - value).square().reshape(len(value), -1) for name, value in meta_params.items()]
    return th.cat(squares, dim=1).sum(1)


def policy_distance(
    name: str,
    meta_params: Params,
    task_params: Params,
    meta_policy: Distribution,
    task_policy: Distribution,
    weights: th.Tensor,
) -> th.Tensor:
    r"""
    D_τ(φ, θ) of Eq. (A2).

    :param name: ``"kl_meta_task"`` KL(π_φ ‖ π_θ), ``"kl_task_meta"`` KL(π_θ ‖ π_φ) or ``"parameter"`` ‖θ − φ‖²
    :param meta_params: φ, each of shape (n_tasks, \*shape)
    :param task_params: θ, same shapes
    :param meta_policy: π_φ at the sampled states, batch shape (n_tasks, n_samples)
    :param task_policy: π_θ at the sampled states, same batch shape
    :param weights: (n_tasks, n_samples), the visitation ν
    :return: (n_tasks,)
    :raises ValueError: for an unknown name
    """
    if name == "kl_meta_task":
        return policy_kl(meta_policy, task_policy, weights)
    if name == "kl_task_meta":
        return policy_kl(task_policy, meta_policy, weights)
    if name == "parameter":
        return parameter_distance(meta_params, task_params)
    raise ValueError(f"distance must be one of {DISTANCES}, got {name!r}")
