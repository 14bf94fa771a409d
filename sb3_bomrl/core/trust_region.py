"""The outer step: a natural-gradient step inside a KL trust region. (Adam is torch.optim's.)"""

from collections.abc import Callable
from typing import NamedTuple

import torch as th

from sb3_bomrl.core.linear_solve import MatVec, conjugate_gradient
from sb3_bomrl.core.params import flatten, grad, require_grad, unflatten
from sb3_bomrl.types import Params


class TrustRegion(NamedTuple):
    """
    Settings of :func:`trust_region_step`.

    :param max_kl: radius, mean KL(π_φ ‖ π_φ_new) in nats, > 0
    :param cg_max_steps: conjugate-gradient iterations on Fisher-vector products
    :param cg_damping: δ ≥ 0 added to the Fisher matrix
    :param max_backtracks: how often a step is shortened before it is given up
    :param backtrack_factor: by how much, in (0, 1)
    """

    max_kl: float = 0.02
    cg_max_steps: int = 10
    cg_damping: float = 1e-3
    max_backtracks: int = 15
    backtrack_factor: float = 0.9


class OuterInfo(NamedTuple):
    """
    What the outer step reports.

    :param kl: mean KL between the meta-policies before and after, in nats
    :param improvement: of the surrogate, nan where none was given
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
    improvement: Callable[[Params], float] | None = None,
    fisher: MatVec | None = None,
) -> tuple[Params, OuterInfo]:
    r"""
    Ascend along the natural gradient to the edge of a trust region (Schulman et al., 2015, App. C), then backtrack
    until the KL holds and the surrogate improves.

    :param meta_params: φ, each of shape \*shape
    :param gradient: ascent direction in parameters, same shapes
    :param kl: φ_new -> mean KL(π_φ ‖ π_φ_new) over the pre-adaptation states of the meta-batch, scalar
    :param settings: radius and limits
    :param improvement: φ_new -> gain of the outer surrogate over φ; only the KL is checked if not given
    :param fisher: products with the Fisher matrix, (1, n_params) -> (1, n_params); by differentiating ``kl`` twice if
        not given
    :return: new φ (the old one where no step was accepted) and the report
    """
    batched = {name: value[None] for name, value in meta_params.items()}
    g = flatten({name: value[None] for name, value in gradient.items()})
    fisher_vector_product = fisher if fisher is not None else _hessian_vector_product(kl, meta_params)
    direction, info = conjugate_gradient(fisher_vector_product, g, settings.cg_max_steps, settings.cg_damping)
    curvature = (direction * (fisher_vector_product(direction) + settings.cg_damping * direction)).sum()
    residual = float(info.residual[0])
    if not (curvature > 0 and curvature.isfinite()):
        return meta_params, OuterInfo(0.0, 0.0, 0, False, residual)

    full_step = direction * (2.0 * settings.max_kl / curvature).sqrt()
    for n in range(settings.max_backtracks + 1):
        step = unflatten(full_step * settings.backtrack_factor**n, batched)
        candidate = {name: (value + step[name][0]).detach() for name, value in meta_params.items()}
        with th.no_grad():
            new_kl = float(kl(candidate))
        if not new_kl <= settings.max_kl:  # nan is too far as well
            continue
        gain = float("nan") if improvement is None else improvement(candidate)
        if improvement is None or gain > 0:
            return candidate, OuterInfo(new_kl, gain, n, True, residual)
    return meta_params, OuterInfo(0.0, 0.0, settings.max_backtracks, False, residual)


def _hessian_vector_product(kl: Callable[[Params], th.Tensor], meta_params: Params) -> MatVec:
    phi = require_grad(meta_params)
    slope = flatten({name: v[None] for name, v in grad(kl(phi), phi, create_graph=True).items()})

    def product(v: th.Tensor) -> th.Tensor:
        gradient = grad((slope * v).sum(), phi, retain_graph=True)
        return flatten({name: value[None] for name, value in gradient.items()})

    return product
