"""
The surrogates h(r) of Eq. (A2), r = π_θ(a∣s) / π_φ(a∣s).

All have h(1) = h'(1) = 1, so they give the same gradient at θ = φ.
"""

from collections.abc import Callable

import torch as th

from sb3_bomrl.checks import check_choice

SURROGATES: tuple[str, ...] = ("linear", "sigmoid", "clip")

POLICY_GRADIENT_SURROGATES: tuple[str, ...] = ("linear", "log")
"""Surrogates of a policy-gradient step: the likelihood ratio and the log-likelihood."""

Surrogate = Callable[[th.Tensor, th.Tensor], th.Tensor]
"""(ratio, advantages) -> h, of the ratio's shape; of the advantages only the sign matters."""

MAX_LOG_RATIO = 30.0
"""Nats. In single precision e^30 = 1e13 has a finite square and e^−30 = 1e-13 a finite logarithm."""


def likelihood_ratio(log_prob: th.Tensor, old_log_prob: th.Tensor) -> th.Tensor:
    """
    Compute r = π_θ(a∣s) / π_φ(a∣s), with log r clipped to [−30, 30], see :data:`MAX_LOG_RATIO`.

    A policy-gradient step may move a sharp policy by a hundred nats in some states. The clip keeps r finite there.

    :param log_prob: log π_θ(a∣s), any shape
    :param old_log_prob: log π_φ(a∣s), same shape
    :return: r, same shape; NaN where a log-probability is
    """
    return (log_prob - old_log_prob).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def linear(ratio: th.Tensor, advantages: th.Tensor) -> th.Tensor:
    """
    Compute h(r) = r, importance sampling.

    :param ratio: r, any shape
    :param advantages: not used
    :return: h(r)
    """
    return ratio


def sigmoid(ratio: th.Tensor, advantages: th.Tensor) -> th.Tensor:
    """
    Compute h(r) = 2σ(2(r − 1)), between 0 and 2.

    :param ratio: r, any shape
    :param advantages: not used
    :return: h(r)
    """
    return 2.0 * th.sigmoid(2.0 * (ratio - 1.0))


def clip(ratio: th.Tensor, advantages: th.Tensor, clip_range: float) -> th.Tensor:
    """
    Compute PPO's clipped h (Schulman et al., 2017, Eq. 7): h(r)·A = min(r·A, clip(r, 1 − ε, 1 + ε)·A).

    :param ratio: r, any shape
    :param advantages: A, same shape
    :param clip_range: ε > 0
    :return: h(r)
    """
    return th.where(advantages >= 0, ratio.clamp(max=1.0 + clip_range), ratio.clamp(min=1.0 - clip_range))


def log(ratio: th.Tensor, advantages: th.Tensor) -> th.Tensor:
    """
    Compute h(r) = 1 + log r, the log-likelihood of REINFORCE.

    Its Hessian is ∇² log π; that of the linear h at r = 1 is ∇² log π + ∇log π ∇log πᵀ.

    :param ratio: r, any shape
    :param advantages: not used
    :return: h(r)
    """
    return 1.0 + ratio.log()


def between_linear_and_log(share: float) -> Surrogate:
    """
    Return h(r) = (1 − c) r + c (1 + log r), for which h''(1) = −c.

    :param share: c in [0, 1]; 0 is the linear h, 1 the log
    :return: the function (ratio, advantages) -> h
    """
    return lambda ratio, advantages: (1.0 - share) * linear(ratio, advantages) + share * log(ratio, advantages)


def get_surrogate(name: str, clip_range: float = 0.2) -> Surrogate:
    """
    Return a surrogate by its name.

    :param name: ``"linear"``, ``"sigmoid"``, ``"clip"`` or ``"log"``
    :param clip_range: ε of ``"clip"``, not used by the others
    :return: the function (ratio, advantages) -> h
    :raises ValueError: for an unknown name
    """
    check_choice("surrogate", name, (*SURROGATES, "log"))
    if name == "clip":
        return lambda ratio, advantages: clip(ratio, advantages, clip_range)
    return {"linear": linear, "sigmoid": sigmoid, "log": log}[name]


def derivatives(surrogate: Surrogate, ratio: th.Tensor, advantages: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
    """
    Compute h'(r) and h''(r) by automatic differentiation.

    :param surrogate: h
    :param ratio: r, any shape
    :param advantages: A, same shape
    :return: h' and h'', same shape
    """
    with th.enable_grad():
        ratio = ratio.detach().requires_grad_()
        first = th.autograd.grad(surrogate(ratio, advantages).sum(), ratio, create_graph=True)[0]
        if not first.requires_grad:  # h is linear
            return first, th.zeros_like(first)
        second = th.autograd.grad(first.sum(), ratio, materialize_grads=True)[0]
    return first.detach(), second
