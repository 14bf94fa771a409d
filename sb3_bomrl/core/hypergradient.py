"""
Hypergradients: the gradient of J_τ(π_θ'(φ)) with respect to the meta-parameters φ.

All functions work on stacked parameters, (n_tasks, *shape), and return one hypergradient per task.
"""

from collections.abc import Callable

import torch as th

from sb3_bomrl.core.advantages import ridge_matrix
from sb3_bomrl.core.linear_solve import Solve, SolveInfo
from sb3_bomrl.core.params import check_same_structure, flatten, grad, require_grad, unflatten
from sb3_bomrl.core.scan import forward_scan, reverse_scan
from sb3_bomrl.core.surrogates import Surrogate, derivatives, likelihood_ratio
from sb3_bomrl.types import Params

HYPERGRADIENTS: tuple[str, ...] = ("implicit", "implicit_sampling", "unrolled", "first_order")

InnerLoss = Callable[[Params, Params], th.Tensor]
"""(θ, φ) -> F(θ, φ), (n_tasks,), twice differentiable in both."""


def implicit_hypergradient(
    inner_loss: InnerLoss,
    adapted_params: Params,
    meta_params: Params,
    cotangent: Params,
    solve: Solve,
    sampling_term: Callable[[Params], Params] | None = None,
) -> tuple[Params, SolveInfo]:
    r"""
    Pull the gradient at the adapted policy back to the meta-policy, Eq. (A3), distance term (A4), by

        −[∇²_{θφ} F(θ', φ)]ᵀ x,    [∇²_{θθ} F(θ', φ) + δI] x = ∇_θ J(θ').

    Invariant: grad_theta inner_loss(adapted_params, meta_params) == 0. Where the inner problem is not solved to
    stationarity the result is biased.

    The gradient of F is built once, and its graph serves every Hessian-vector product and the mixed derivative.

    :param inner_loss: F(θ, φ), scalar per task; twice differentiable
    :param adapted_params: θ', each of shape (n_tasks, \*shape)
    :param meta_params: φ, same shapes
    :param cotangent: ∇_θ J(θ'), same shapes
    :param solve: (matvec, b) -> (x, info); brings its own damping δ, and must tolerate a singular but consistent system
    :param sampling_term: x -> [part (b) of ∇²_{θφ} F]ᵀ x, Eq. (A5), see :func:`score_function_sampling_term`; left out
        if not given
    :return: hypergradient per task, shapes as ``meta_params``, and the solver's residual and status
    :raises ValueError: if parameter names or shapes differ
    """
    check_same_structure("adapted_params", adapted_params, "meta_params", meta_params)
    check_same_structure("cotangent", cotangent, "meta_params", meta_params)
    theta, phi = require_grad(adapted_params), require_grad(meta_params)
    gradient = flatten(grad(inner_loss(theta, phi).sum(), theta, create_graph=True))

    def hessian_vector_product(v: th.Tensor) -> th.Tensor:
        return flatten(grad((gradient * v).sum(), theta, retain_graph=True))

    x, info = solve(hessian_vector_product, flatten(cotangent))
    mixed = grad((gradient * x).sum(), phi)
    if sampling_term is not None:
        sampling = sampling_term(unflatten(x, theta))
        mixed = {name: value + sampling[name] for name, value in mixed.items()}
    return {name: -value for name, value in mixed.items()}, info


def score_function_sampling_term(
    log_prob: Callable[[Params], th.Tensor],
    adapted_params: Params,
    meta_params: Params,
    direction: Params,
    surrogate: Surrogate,
    advantages: th.Tensor,
    weights: th.Tensor,
    episode_starts: th.Tensor,
    episode_ends: th.Tensor,
    gamma: float,
    reg_coef: float,
    state_distance: Callable[[Params], th.Tensor] | None = None,
    baseline_features: th.Tensor | None = None,
) -> Params:
    r"""
    The sampling term (b) of ∇²_{θφ} F times x, Eq. (A5), estimated with score functions, Eq. (A6):

        Σ_t (g_t A_t + w_t c_t − w_t m) Σ_{u<t} ∇log π_φ(a_u∣s_u) + Σ_t g_t Σ_{u>t} γ^{u−t} A_u ∇log π_φ(a_u∣s_u)

    with w_t the weight of the sample (γ^t in the discounted case), g_t = −(w_t/λ) ⟨∇_θ h(r_t), x⟩, r_t the ratio,
    c_t = ⟨∇_θ d²(π_φ(·∣s_t), π_θ(·∣s_t)), x⟩ and m = Σ_t (g_t A_t + w_t c_t).

    The first sum is how the visitation moves with φ, in the surrogate and (c_t) in the distance, which is an average
    over the same states; m appears because the weights are normalised, which matters where episodes differ in length.
    The second sum is how the advantages move. For h other than the linear, the same step adds
    (w_t/λ) h''(r_t) r_t² ψ_t A_t ∇log π_φ(a_t∣s_t), because there the importance weight does not account for a_t, and

        −Σ_t b_t Σ_{u≥t} γ^{u−t} A_u ∇log π_φ(a_u∣s_u),    b_t = f_tᵀ [Σ_t f_t f_tᵀ]⁻¹ Σ_t g_t f_t,

    because there the baseline in A_t matters, whose values f_tᵀ w move with the returns that w is fitted to; b is the
    projection of g on the features.

    The estimate is consistent where the features can represent V^φ. Left out are: how a misfit moves with the
    visitation; the kinks of the clipped h; how the scale of normalised advantages moves (λ is then in their units);
    and what lies beyond the step where an episode was cut off.

    The two double sums are one reverse and one forward scan over time, then one backward pass.

    :param log_prob: parameters -> log π(a_t∣s_t) of the sampled actions, (n_tasks, n_steps, n_envs)
    :param adapted_params: θ', each of shape (n_tasks, \*shape)
    :param meta_params: φ, same shapes
    :param direction: x, same shapes
    :param surrogate: h
    :param advantages: A_t, (n_tasks, n_steps, n_envs), or returns-to-go for the linear h
    :param weights: (n_tasks, n_steps, n_envs), sum to one per task
    :param episode_starts: (n_tasks, n_steps, n_envs) bool
    :param episode_ends: (n_tasks, n_steps, n_envs) bool
    :param gamma: discount factor in [0, 1]
    :param reg_coef: λ > 0
    :param state_distance: θ -> d²(π_φ(·∣s_t), π_θ(·∣s_t)), (n_tasks, n_steps, n_envs); left out where D is no average
        over states, Alg(3)
    :param baseline_features: f_t, (n_tasks, n_steps, n_envs, n_features), 0 outside the mask, of a baseline that is
        fitted to the same data; left out if the baseline does not depend on φ
    :return: [part (b)]ᵀ x per task, shapes as ``meta_params``
    """
    phi = require_grad(meta_params)
    log_prob_phi = log_prob(phi)
    log_prob_theta, psi = _directional_derivative(log_prob, adapted_params, direction)
    ratio = likelihood_ratio(log_prob_theta, log_prob_phi.detach())
    first, second = derivatives(surrogate, ratio, advantages)

    gain = -weights * first * ratio * psi / reg_coef
    moved = gain * advantages
    if state_distance is not None:
        moved = moved + weights * _directional_derivative(state_distance, adapted_params, direction)[1]
    moved = moved - weights * moved.sum((1, 2), keepdim=True)
    later = reverse_scan(moved, (~episode_ends).to(moved.dtype)) - moved
    through_advantage = gain if baseline_features is None else gain - _project(gain, baseline_features)
    earlier = forward_scan(through_advantage, gamma * (~episode_starts).to(gain.dtype)) - gain
    own = weights * second * ratio.square() * psi * advantages / reg_coef
    coefficient = later + advantages * earlier + own
    return grad((coefficient * log_prob_phi).sum(), phi)


def _project(values: th.Tensor, features: th.Tensor) -> th.Tensor:
    """Least-squares projection on the features, by task; (n_tasks, n_steps, n_envs) as ``values``."""
    f = features.flatten(1, 2).double()
    weights = th.linalg.solve(ridge_matrix(f), f.mT @ values.flatten(1, 2)[..., None].double())
    return (f @ weights).reshape(values.shape).to(values)


def _directional_derivative(
    function: Callable[[Params], th.Tensor], params: Params, direction: Params
) -> tuple[th.Tensor, th.Tensor]:
    """f(params) and ⟨∇f(params), direction⟩ elementwise, by two backward passes (which every operation supports)."""
    leaves = require_grad(params)
    value = function(leaves)
    dummy = th.ones_like(value, requires_grad=True)
    gradient = grad((value * dummy).sum(), leaves, create_graph=True)
    total = th.stack([(gradient[name] * direction[name]).sum() for name in direction]).sum()
    return value.detach(), th.autograd.grad(total, dummy)[0]


def unrolled_hypergradient(adapted_params: Params, meta_params: Params, cotangent: Params) -> Params:
    r"""
    Differentiate through the steps of the inner solver: [dθ'/dφ]ᵀ ∇_θ J(θ').

    :param adapted_params: θ' with its graph, from :func:`~sb3_bomrl.core.inner_solvers.solve_inner` with
        ``differentiable=True``
    :param meta_params: φ that the graph leads to, each of shape (n_tasks, \*shape)
    :param cotangent: ∇_θ J(θ'), same shapes
    :return: hypergradient per task, same shapes
    """
    check_same_structure("cotangent", cotangent, "adapted_params", adapted_params)
    total = th.stack([(adapted_params[name] * value.detach()).sum() for name, value in cotangent.items()]).sum()
    return grad(total, meta_params)


def first_order_hypergradient(cotangent: Params) -> Params:
    r"""
    ∇_θ J(θ') taken as it is, as if dθ'/dφ were the identity.

    :param cotangent: ∇_θ J(θ'), each of shape (n_tasks, \*shape)
    :return: the same
    """
    return cotangent
