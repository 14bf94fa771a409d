"""The three distances d²(π_φ, π_θ) of Alg(1), Alg(2) and Alg(3)."""

from collections.abc import Callable

import torch as th
from torch.distributions import Distribution, kl_divergence

from sb3_bomrl.checks import check_choice
from sb3_bomrl.types import Params

StateDistance = Callable[[Distribution, Distribution], th.Tensor]
"""(π_φ, π_θ), each of batch shape (n_tasks, n_samples) -> d²(π_φ(·∣s), π_θ(·∣s)), (n_tasks, n_samples), in nats."""

STATE_DISTANCES: dict[str, StateDistance] = {
    "kl_meta_task": lambda meta_policy, task_policy: kl_divergence(meta_policy, task_policy),
    "kl_task_meta": lambda meta_policy, task_policy: kl_divergence(task_policy, meta_policy),
}
"""d² in every state, of the distances that are averages over states: Alg(1) and Alg(2)."""

DISTANCES: tuple[str, ...] = (*STATE_DISTANCES, "parameter")


def policy_kl(p: Distribution, q: Distribution, weights: th.Tensor) -> th.Tensor:
    """
    Compute the mean divergence Σ_s ν(s) KL(p(·∣s) ‖ q(·∣s)).

    :param p: batch shape (n_tasks, n_samples)
    :param q: batch shape (n_tasks, n_samples)
    :param weights: (n_tasks, n_samples), the visitation ν
    :return: (n_tasks,) in nats; a sample of weight 0 adds 0, even where its divergence is infinite
    """
    return _mean_over_states(kl_divergence(p, q), weights)


def _mean_over_states(values: th.Tensor, weights: th.Tensor) -> th.Tensor:
    """Σ_s ν(s) values(s), with 0 · ∞ = 0."""
    return th.where(weights > 0, weights * values, 0.0).sum(-1)


def parameter_distance(meta_params: Params, task_params: Params) -> th.Tensor:
    r"""
    Compute ‖θ − φ‖², the distance of Alg(3).

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
    Compute the distance D_τ(φ, θ) of Eq. (A2):

    - ``"kl_meta_task"``, Alg(1): Σ_s ν(s) KL(π_φ(·∣s) ‖ π_θ(·∣s))
    - ``"kl_task_meta"``, Alg(2): Σ_s ν(s) KL(π_θ(·∣s) ‖ π_φ(·∣s))
    - ``"parameter"``, Alg(3): ‖θ − φ‖²

    :param name: one of :data:`DISTANCES`
    :param meta_params: φ, each of shape (n_tasks, \*shape)
    :param task_params: θ, same shapes
    :param meta_policy: π_φ at the sampled states, batch shape (n_tasks, n_samples)
    :param task_policy: π_θ at the sampled states, same batch shape
    :param weights: (n_tasks, n_samples), the visitation ν
    :return: (n_tasks,)
    :raises ValueError: for an unknown name
    """
    check_choice("distance", name, DISTANCES)
    if name == "parameter":
        return parameter_distance(meta_params, task_params)
    return _mean_over_states(STATE_DISTANCES[name](meta_policy, task_policy), weights)
