r"""
The exact lower level of Alg(3) for a softmax table, one state at a time.

With :math:`D = \Vert\theta - \varphi\Vert^2` the states are separate problems, in each of which one minimises

.. math:: f(\theta) = -\kappa \langle Q, \mathrm{softmax}(\theta) \rangle + \Vert\theta - \varphi\Vert^2,
    \qquad \kappa = \nu(s) / \lambda.

There is no closed form, and for a large :math:`\kappa` the problem is not convex. Newton's method, with the absolute
values of the curvatures and with backtracking, descends from :math:`\theta = \varphi` to a local minimum.
"""

import torch as th

GRADIENT_TOLERANCE = 1e-10
_MAX_STEPS = 200
_MAX_HALVINGS = 40
_ARMIJO = 1e-4


def parameter_minimizer(meta_logits: th.Tensor, q_values: th.Tensor, strength: th.Tensor) -> th.Tensor:
    r"""
    Compute a local minimiser of f in each state, no worse than the meta-logits, differentiable in all arguments.

    :param meta_logits: phi, shape (..., S, A)
    :param q_values: action values (advantages give the same), shape (..., S, A)
    :param strength: kappa = nu(s) / lambda, shape (..., S), >= 0
    :return: theta, shape (..., S, A), with gradient norm at most 1e-10 in every state (relative to kappa |Q| > 1)
    :raises RuntimeError: if that is not reached
    """
    meta_logits, q_values, strength = th.broadcast_tensors(meta_logits, q_values, strength.unsqueeze(-1))
    # Only differences of Q matter: without its level, fewer digits cancel.
    gains = strength * (q_values - q_values.detach().amax(dim=-1, keepdim=True))
    with th.no_grad():
        logits = _minimize(meta_logits.flatten(end_dim=-2), gains.flatten(end_dim=-2)).view(meta_logits.shape)
        curvature = _hessian(logits, gains)
    # At the solution, a Newton step changes the value by rounding only and has the solution's first derivatives.
    gradient = _gradient(logits, meta_logits, gains)
    return logits - th.linalg.solve(curvature, gradient.unsqueeze(-1)).squeeze(-1)


def _minimize(meta_logits: th.Tensor, gains: th.Tensor) -> th.Tensor:
    """Newton's method with backtracking on (n, A) independent problems; finished ones leave the batch."""
    solution = meta_logits.clone()
    tolerance = GRADIENT_TOLERANCE * gains.abs().amax(dim=-1).clamp_min(1.0)
    open_rows = th.arange(len(solution))
    for _ in range(_MAX_STEPS):
        gradient = _gradient(solution[open_rows], meta_logits[open_rows], gains[open_rows])
        unsolved = gradient.norm(dim=-1) > tolerance[open_rows]
        open_rows, gradient = open_rows[unsolved], gradient[unsolved]
        if len(open_rows) == 0:
            return solution
        direction = _descent_direction(solution[open_rows], gains[open_rows], gradient)
        solution[open_rows] = _backtrack(
            solution[open_rows], meta_logits[open_rows], gains[open_rows], direction, (gradient * direction).sum(dim=-1)
        )
    raise RuntimeError(
        f"the lower level of Alg(3) was not solved to gradient norm {GRADIENT_TOLERANCE} in {_MAX_STEPS} Newton steps "
        f"in {len(open_rows)} states (worst {gradient.norm(dim=-1).max().item():.2e}): use a larger reg_coef"
    )


def _descent_direction(logits: th.Tensor, gains: th.Tensor, gradient: th.Tensor) -> th.Tensor:
    """Newton's direction with the absolute values of the curvatures, a direction of descent."""
    curvatures, axes = th.linalg.eigh(_hessian(logits, gains))
    size = curvatures.abs()
    size = size.maximum(1e-6 * size.amax(dim=-1, keepdim=True))
    along = (axes.transpose(-1, -2) @ gradient.unsqueeze(-1)).squeeze(-1)
    return -(axes @ (along / size).unsqueeze(-1)).squeeze(-1)


def _backtrack(
    logits: th.Tensor, meta_logits: th.Tensor, gains: th.Tensor, direction: th.Tensor, slope: th.Tensor
) -> th.Tensor:
    """Halve the step until the objective falls (Armijo), up to rounding."""
    start = _objective(logits, meta_logits, gains)
    rounding = 1e-14 * (gains.abs().amax(dim=-1) + (logits - meta_logits).square().sum(dim=-1))
    step = th.ones_like(start)
    for _ in range(_MAX_HALVINGS):
        proposal = logits + step.unsqueeze(-1) * direction
        too_high = _objective(proposal, meta_logits, gains) > start + _ARMIJO * step * slope + rounding
        if not bool(too_high.any()):
            break
        step = th.where(too_high, 0.5 * step, step)
    return proposal


def _objective(logits: th.Tensor, meta_logits: th.Tensor, gains: th.Tensor) -> th.Tensor:
    return (logits - meta_logits).square().sum(dim=-1) - (th.softmax(logits, dim=-1) * gains).sum(dim=-1)


def _centred_gains(logits: th.Tensor, gains: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
    """Compute the policy p and p * (gains - <p, gains>), the gradient of <p, gains>."""
    policy = th.softmax(logits, dim=-1)
    return policy, policy * (gains - (policy * gains).sum(dim=-1, keepdim=True))


def _gradient(logits: th.Tensor, meta_logits: th.Tensor, gains: th.Tensor) -> th.Tensor:
    return 2 * (logits - meta_logits) - _centred_gains(logits, gains)[1]


def _hessian(logits: th.Tensor, gains: th.Tensor) -> th.Tensor:
    policy, centred = _centred_gains(logits, gains)
    cross = policy.unsqueeze(-1) * centred.unsqueeze(-2)
    identity = th.eye(logits.shape[-1], dtype=logits.dtype)
    return 2 * identity - th.diag_embed(centred) + cross + cross.transpose(-1, -2)
