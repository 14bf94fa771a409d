r"""
Exact minimisers of the lower level, Eq. (A2), for tabular softmax policies, one state at a time.

With the linear surrogate, the lower level of Alg(1) and Alg(2) in each state is

.. math:: \pi' = \arg\min_{p \in \Delta} \; -\tfrac{1}{\lambda} \langle Q, p \rangle + d^2(\pi_\varphi, p),

for any positive weight of the state. All leading axes are batch axes.
"""

import torch as th

from sb3_bomrl.checks import check_positive

_MAX_ROOT_ITERATIONS = 100
_DIFFERENTIABLE_STEPS = 2
_SUM_TOLERANCE = 1e-3


def kl_meta_task_minimizer(probs: th.Tensor, q_values: th.Tensor, reg_coef: float) -> th.Tensor:
    r"""
    Minimise :math:`-\langle Q, p \rangle / \lambda + KL(\pi_\varphi \Vert p)` in every state: Alg(1)'s lower level.

    The minimiser is :math:`\pi' = \pi_\varphi / (\mu - Q / \lambda)`, where :math:`\mu` is the only root of
    :math:`\sum_a \pi'(a) = 1` in :math:`[\max_a (Q / \lambda + \pi_\varphi), \max_a Q / \lambda + 1]`.
    It is differentiable in ``probs`` and ``q_values`` up to third order, implicitly through the KKT system.

    :param probs: meta-policy, shape (..., n_actions); strictly positive, each row sums to 1
    :param q_values: action values (advantages give the same), shape (..., n_actions)
    :param reg_coef: lambda, weight of the distance, > 0
    :return: probabilities of the minimiser, shape (..., n_actions)
    :raises ValueError: if the shapes cannot be broadcast, ``reg_coef`` is not positive and finite, a probability is not
        positive and finite (with a zero the minimiser need not be unique), or a row does not sum to 1
    """
    _check_inputs("probs", probs, q_values, reg_coef)
    if not bool(((probs > 0) & th.isfinite(probs)).all()):
        raise ValueError(f"probs must be positive and finite, but their minimum is {probs.min().item():g}")
    if not bool(((probs.sum(dim=-1) - 1).abs() < _SUM_TOLERANCE).all()):
        raise ValueError(f"probs must sum to 1 over the last axis, got sums up to {probs.sum(dim=-1).max().item():g}")
    # Only differences of Q matter: the best action's value counts as a constant, so ties need no special treatment.
    gaps = (q_values.detach().amax(dim=-1, keepdim=True) - q_values) / reg_coef
    shift = _normalizing_shift(probs.detach(), gaps.detach())
    # At the root, k Newton steps keep its value and have its derivatives up to order 2^k - 1.
    for _ in range(_DIFFERENTIABLE_STEPS):
        shift = _newton_step(probs, gaps, shift)
    return probs / (shift + gaps)


def kl_task_meta_minimizer(log_probs: th.Tensor, q_values: th.Tensor, reg_coef: float) -> th.Tensor:
    r"""
    Minimise :math:`-\langle Q, p \rangle / \lambda + KL(p \Vert \pi_\varphi)` in every state: Alg(2)'s lower level.

    The minimiser is :math:`\pi' \propto \pi_\varphi \exp(Q / \lambda)`.

    :param log_probs: log-probabilities of the meta-policy (logits give the same), shape (..., n_actions)
    :param q_values: action values (advantages give the same), shape (..., n_actions)
    :param reg_coef: lambda, weight of the distance, > 0
    :return: log-probabilities of the minimiser, shape (..., n_actions)
    :raises ValueError: if the shapes cannot be broadcast, or ``reg_coef`` is not positive and finite
    """
    _check_inputs("log_probs", log_probs, q_values, reg_coef)
    # Subtracting the largest value first keeps a small reg_coef from overflow and cancellation.
    gaps = q_values - q_values.detach().amax(dim=-1, keepdim=True)
    return th.log_softmax(log_probs + gaps / reg_coef, dim=-1)


def _newton_step(probs: th.Tensor, gaps: th.Tensor, shift: th.Tensor) -> th.Tensor:
    """One Newton step on ``1 / sum(p) = 1`` with ``p = probs / (shift + gaps)``."""
    # The reciprocal is increasing and concave in the shift: from the left of the root the steps never overshoot.
    # On sum(p) = 1 itself, a start near the pole would need far more of them.
    policy = probs / (shift + gaps)
    total = policy.sum(dim=-1, keepdim=True)
    slope = (policy / (shift + gaps)).sum(dim=-1, keepdim=True)
    return shift + total * (total - 1) / slope


def _normalizing_shift(probs: th.Tensor, gaps: th.Tensor) -> th.Tensor:
    """Find the root in mu - max(Q) / lambda of ``sum(probs / (shift + gaps)) = 1``, by Newton steps with bisection."""
    lower = (probs - gaps).amax(dim=-1, keepdim=True)
    upper = probs.sum(dim=-1, keepdim=True).maximum(lower)
    shift = lower
    rounding = 2 * probs.shape[-1] * th.finfo(shift.dtype).eps
    for _ in range(_MAX_ROOT_ITERATIONS):
        total = (probs / (shift + gaps)).sum(dim=-1, keepdim=True)
        if bool(((total - 1).abs() <= rounding).all()):
            break
        proposal = _newton_step(probs, gaps, shift)
        lower = th.where(total >= 1, shift, lower)
        upper = th.where(total <= 1, shift, upper)
        inside = (proposal >= lower) & (proposal <= upper)
        shift = th.where(inside, proposal, 0.5 * (lower + upper))
    return shift


def _check_inputs(name: str, policy: th.Tensor, q_values: th.Tensor, reg_coef: float) -> None:
    check_positive("reg_coef", reg_coef)
    if policy.dim() == 0 or q_values.dim() == 0 or policy.shape[-1] != q_values.shape[-1]:
        raise ValueError(
            f"{name} and q_values must agree in their last axis, the actions, "
            f"got shapes {tuple(policy.shape)} and {tuple(q_values.shape)}"
        )
    try:
        th.broadcast_shapes(policy.shape, q_values.shape)
    except RuntimeError as error:
        raise ValueError(
            f"{name} and q_values must broadcast, got shapes {tuple(policy.shape)} and {tuple(q_values.shape)}"
        ) from error
