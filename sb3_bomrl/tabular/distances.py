"""The distances of Alg(1), Alg(2) and Alg(3) between softmax tables."""

import torch as th

from sb3_bomrl.checks import check_choice
from sb3_bomrl.core.distances import DISTANCES


def kl_divergence(log_p: th.Tensor, log_q: th.Tensor) -> th.Tensor:
    r"""
    Compute :math:`KL(p \Vert q)` in each state, with 0 log 0 = 0; infinite where q excludes an action of p.

    :param log_p: log-probabilities, shape (..., S, A); may be -inf
    :param log_q: log-probabilities, shape (..., S, A); may be -inf
    :return: nats, shape (..., S)
    """
    log_p, log_q = th.broadcast_tensors(log_p, log_q)
    absent = log_p == -th.inf
    ratio = th.where(absent, 0.0, log_p) - th.where(absent, 0.0, log_q)
    # A probability of p that underflows to 0 must not hide that q excludes the action.
    return th.where(ratio == th.inf, th.inf, log_p.exp() * ratio).sum(dim=-1)


def state_distances(distance: str, base_logits: th.Tensor, logits: th.Tensor) -> th.Tensor:
    r"""
    Compute the distance of two softmax tables in each state, :math:`d^2_s(\varphi, \theta)`.

    For ``"parameter"`` it is the state's part of :math:`\Vert\theta - \varphi\Vert^2`.

    :param distance: ``"kl_meta_task"``, ``"kl_task_meta"`` or ``"parameter"``
    :param base_logits: phi, shape (..., S, A)
    :param logits: theta, shape (..., S, A)
    :return: shape (..., S)
    :raises ValueError: for an unknown name
    """
    check_choice("distance", distance, DISTANCES)
    if distance == "parameter":
        return (logits - base_logits).square().sum(dim=-1)
    log_base, log_task = th.log_softmax(base_logits, dim=-1), th.log_softmax(logits, dim=-1)
    if distance == "kl_meta_task":
        return kl_divergence(log_base, log_task)
    return kl_divergence(log_task, log_base)


def expected_distance(distance: str, weights: th.Tensor, base_logits: th.Tensor, logits: th.Tensor) -> th.Tensor:
    r"""
    Compute :math:`D(\varphi, \theta)`, the mean of a KL distance over states, or the sum of ``"parameter"`` over them.

    :param distance: ``"kl_meta_task"``, ``"kl_task_meta"`` or ``"parameter"``
    :param weights: state distribution nu, shape (..., S); not used by ``"parameter"``
    :param base_logits: phi, shape (..., S, A)
    :param logits: theta, shape (..., S, A)
    :return: shape (...); a state of weight 0 adds 0, even where its distance is infinite
    """
    distances = state_distances(distance, base_logits, logits)
    if distance == "parameter":
        return distances.sum(dim=-1)
    return th.where(weights > 0, weights * distances, 0.0).sum(dim=-1)
