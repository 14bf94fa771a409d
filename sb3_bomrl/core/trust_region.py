"""The outer step: a natural-gradient step inside a KL trust region."""

from collections.abc import Callable
from typing import NamedTuple

import torch as th

from sb3_bomrl.core.linear_solve import MatVec, conjugate_gradient
from sb3_bomrl.core.params import flatten, unflatten
from sb3_bomrl.types import Params

MAX_BACKTRACKS = 15
"""Times that a step is shortened before it is given up."""

BACKTRACK_FACTOR = 0.9
"""Factor on a step that does not improve the surrogate, and the largest one on a step that leaves the region."""

SMALLEST_FACTOR = 0.5
"""The smallest factor on a step that leaves the region."""


class TrustRegion(NamedTuple):
    """
    Settings of :func:`trust_region_step`.

    :param max_kl: radius in nats, > 0
    :param cg_max_steps: conjugate-gradient iterations on Fisher-vector products
    :param cg_damping: δ ≥ 0 added to the Fisher matrix
    """

    max_kl: float
    cg_max_steps: int
    cg_damping: float


class OuterInfo(NamedTuple):
    """
    Report of an outer step.

    :param kl: KL that the radius bounds, in nats
    :param improvement: gain of the outer surrogate, NaN where it was not checked
    :param n_backtracks: times the step was shortened
    :param accepted: whether the parameters moved
    :param cg_residual: relative residual of the natural-gradient direction
    """

    kl: float
    improvement: float
    n_backtracks: int
    accepted: bool
    cg_residual: float


def trust_region_step(
    meta_params: Params,
    gradient: Params,
    kl: Callable[[Params], th.Tensor],
    settings: TrustRegion,
    improvement: Callable[[Params], float] | None,
    fisher: MatVec,
) -> tuple[Params, OuterInfo]:
    r"""
    Ascend along the natural gradient within a KL radius (Schulman et al., 2015, App. C):

        φ_new = φ + s √(2 κ / dᵀ(F + δI)d) d,    (F + δI) d = g,

    with κ the radius ``max_kl``. s is 1 at first. Where the KL is above κ, s is multiplied by √(κ / KL), which is right
    for a KL that is quadratic in the step, but by at most 0.9 and at least 0.5; where the surrogate does not improve,
    by 0.9. Where F is not the Fisher matrix of the KL's policies, it gives the direction alone.

    :param meta_params: φ, each of shape \*shape
    :param gradient: g, ascent direction in parameters, same shapes
    :param kl: φ_new -> KL that the radius bounds, scalar, 0 at φ
    :param settings: radius κ, damping δ and iterations of conjugate gradients
    :param improvement: φ_new -> gain of the outer surrogate over φ; ``None`` to check the KL alone
    :param fisher: products with the Fisher matrix F, (1, n_params) -> (1, n_params)
    :return: new φ and the report; the old φ where no step was accepted
    """
    batched = {name: value[None] for name, value in meta_params.items()}
    g = flatten({name: value[None] for name, value in gradient.items()})
    direction, info = conjugate_gradient(fisher, g, settings.cg_max_steps, settings.cg_damping)
    curvature = (direction * (fisher(direction) + settings.cg_damping * direction)).sum()
    residual = float(info.residual[0])
    if not (curvature > 0 and curvature.isfinite()):
        return meta_params, OuterInfo(0.0, 0.0, 0, False, residual)

    full_step = direction * (2.0 * settings.max_kl / curvature).sqrt()
    scale = 1.0
    for n in range(MAX_BACKTRACKS + 1):
        step = unflatten(full_step * scale, batched)
        candidate = {name: (value + step[name][0]).detach() for name, value in meta_params.items()}
        new_kl = float(kl(candidate))
        if not new_kl <= settings.max_kl:  # nan is too far as well
            scale *= _factor(settings.max_kl, new_kl)
            continue
        gain = float("nan") if improvement is None else improvement(candidate)
        if improvement is None or gain > 0:
            return candidate, OuterInfo(new_kl, gain, n, True, residual)
        scale *= BACKTRACK_FACTOR
    return meta_params, OuterInfo(0.0, 0.0, MAX_BACKTRACKS, False, residual)


def _factor(max_kl: float, kl: float) -> float:
    """√(κ / KL) within its bounds."""
    return min(max((max_kl / kl) ** 0.5, SMALLEST_FACTOR), BACKTRACK_FACTOR) if kl < float("inf") else SMALLEST_FACTOR
