"""The exact solution of the sampled lower level for a softmax table, Alg(1) and Alg(2)."""

import torch as th

from sb3_bomrl.core.inner_solvers import InnerStatus
from sb3_bomrl.core.minimizers import kl_meta_task_minimizer, kl_task_meta_minimizer
from sb3_bomrl.core.params import flatten, grad, require_grad
from sb3_bomrl.meta.lower_level import LowerLevel
from sb3_bomrl.policies.tabular import TabularPolicy
from sb3_bomrl.types import Adaptation, Params

_TABLE = "action_net.weight"


def check_closed_form(policy: object, distance: str, surrogate: str) -> None:
    """
    Require what the closed forms hold for.

    :param policy: must be a :class:`~sb3_bomrl.policies.TabularPolicy`
    :param distance: must be a KL divergence
    :param surrogate: must be ``"linear"``
    :raises ValueError: otherwise
    """
    if not isinstance(policy, TabularPolicy):
        raise ValueError(f"inner_solver='closed_form' needs policy='TabularPolicy', got {type(policy).__name__}")
    if distance == "parameter":
        raise ValueError("inner_solver='closed_form' needs a KL distance, got distance='parameter'")
    if surrogate != "linear":
        raise ValueError(f"inner_solver='closed_form' needs surrogate='linear', got {surrogate!r}")


@th.no_grad()
def closed_form_adaptation(lower: LowerLevel, meta_params: Params) -> Adaptation:
    r"""
    Minimise the sampled F(θ, φ) of a softmax table exactly, state by state, Eq. (A2).

    With h(r) = r the sampled objective is, per visited state and with the state's weight ν(s) taken out,
    −⟨q(s,·), π_θ(·∣s)⟩/λ + d²(π_φ, π_θ) for q(s,a) = Σ_{t: s_t=s, a_t=a} w_t A_t / (ν(s) π(a∣s)), π being the policy
    that acted. Its minimiser has a closed form. States that were not visited keep the meta-policy.

    :param lower: lower level of a table, with a KL distance and the linear surrogate
    :param meta_params: φ, each of shape (n_tasks, \*shape)
    :return: θ', with n_steps 1 and status ``GRADIENT_TOLERANCE``
    """
    logits = meta_params[_TABLE].double().mT  # (n_tasks, n_states, n_actions)
    log_probs = logits.log_softmax(-1)
    q_values = _sampled_q_values(lower, log_probs)
    if lower.distance == "kl_meta_task":
        new_logits = kl_meta_task_minimizer(log_probs.exp(), q_values, lower.reg_coef).log()
    else:
        new_logits = kl_task_meta_minimizer(log_probs, q_values, lower.reg_coef)
    params = {**meta_params, _TABLE: new_logits.mT.to(meta_params[_TABLE].dtype).contiguous()}
    return _report(lower, meta_params, params)


def _sampled_q_values(lower: LowerLevel, log_probs: th.Tensor) -> th.Tensor:
    """q(s, a), (n_tasks, n_states, n_actions), 0 at states that were not visited."""
    batch = lower.batch
    assert isinstance(batch.observations, th.Tensor)
    states = batch.observations.flatten(2).argmax(-1)
    cell = states * log_probs.shape[-1] + batch.actions
    sums = th.zeros_like(log_probs).flatten(1)
    gains = batch.weights.double() * batch.advantages.double() / batch.log_probs.double().exp()
    sums.scatter_add_(1, cell, gains)
    visitation = log_probs.new_zeros(log_probs.shape[:2]).scatter_add_(1, states, batch.weights.double())
    visitation = visitation.clamp(min=th.finfo(visitation.dtype).tiny)[..., None]
    return sums.reshape(log_probs.shape) / visitation


def _report(lower: LowerLevel, meta_params: Params, params: Params) -> Adaptation:
    with th.enable_grad():
        theta = require_grad(params)
        value = lower.value(theta, meta_params, lower.policy(meta_params))
        norm = flatten(grad(value.objective.sum(), theta)).norm(dim=1)
    n_tasks = len(norm)
    status = th.full((n_tasks,), int(InnerStatus.GRADIENT_TOLERANCE), device=norm.device)
    return Adaptation(
        params,
        th.ones(n_tasks, dtype=th.long, device=norm.device),
        value.objective.detach(),
        value.distance.detach(),
        value.kl.detach(),
        norm,
        status,
    )
