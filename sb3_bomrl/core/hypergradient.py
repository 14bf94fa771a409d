"""
Hypergradients: the gradient of J_τ(π_θ'(φ)) with respect to the meta-parameters φ.

All functions take stacked parameters, (n_tasks, *shape), and return one hypergradient per task.
"""

from collections.abc import Callable

import torch as th

from sb3_bomrl.core.advantages import ridge_matrix
from sb3_bomrl.core.linear_solve import Solve, SolveInfo
from sb3_bomrl.core.params import check_same_structure, flatten, grad, require_grad, unflatten
from sb3_bomrl.core.scan import forward_scan, reverse_scan
from sb3_bomrl.core.surrogates import Surrogate, derivatives, likelihood_ratio
from sb3_bomrl.types import Params

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
    Compute the hypergradient by implicit differentiation, Eq. (A3), with the distance term (A4):

        −[∇²_{θφ} F(θ', φ)]ᵀ x,    [∇²_{θθ} F(θ', φ) + δI] x = ∇_θ J(θ').

    Invariant: ∇_θ F(θ', φ) = 0. The result is biased if the lower level is not solved to stationarity.

    One graph, that of the gradient of F, serves every Hessian-vector product and the mixed derivative.

    :param inner_loss: F(θ, φ), scalar per task, twice differentiable
    :param adapted_params: θ', each of shape (n_tasks, \*shape)
    :param meta_params: φ, same shapes
    :param cotangent: ∇_θ J(θ'), same shapes
    :param solve: (matvec, b) -> (x, info); adds its own damping δ, and must tolerate a singular but consistent system
    :param sampling_term: x -> [part (b) of ∇²_{θφ} F]ᵀ x, Eq. (A5), see :func:`score_function_sampling_term`; ``None``
        to leave it out
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
    Estimate the product of the sampling term, part (b) of ∇²_{θφ} F in Eq. (A5), with x by score functions, Eq. (A6):

        Σ_t (g_t A_t + w_t c_t − w_t m) Σ_{u<t} ∇log π_φ(a_u∣s_u) + Σ_t g_t Σ_{u>t} γ^{u−t} A_u ∇log π_φ(a_u∣s_u)

    with the sample's weight w_t (γᵗ in the discounted case), the ratio r_t, g_t = −(w_t/λ) ⟨∇_θ h(r_t), x⟩,
    c_t = ⟨∇_θ d²(π_φ(·∣s_t), π_θ(·∣s_t)), x⟩ and m = Σ_t (g_t A_t + w_t c_t).

    The first sum is the derivative of the visitation: in the surrogate, and in the distance (c_t), which averages over
    the same states. The term m comes from the normalisation of the weights, and matters if episodes differ in length.
    The second sum is the derivative of the advantages.

    If h is not linear, two terms are added. One is (w_t/λ) h''(r_t) r_t² ψ_t A_t ∇log π_φ(a_t∣s_t), with
    ψ_t = ⟨∇_θ log π_θ(a_t∣s_t), x⟩: the importance weight no longer accounts for a_t. The other is

        −Σ_t b_t Σ_{u≥t} γ^{u−t} A_u ∇log π_φ(a_u∣s_u),    b_t = f_tᵀ [Σ_t f_t f_tᵀ]⁻¹ Σ_t g_t f_t,

    the derivative of the baseline's values f_tᵀ w in A_t, which are fitted to the returns; b is the projection of g on
    the features.

    The estimate is consistent if the features can represent V^φ. It neglects the change of a misfit with the
    visitation, the kinks of the clipped h, the change of the scale of normalised advantages (λ is then in their
    units), and everything beyond the step where an episode was cut off.

    One reverse and one forward scan over time compute the double sums, then one backward pass the result.

    :param log_prob: parameters -> log π(a_t∣s_t) of the sampled actions, (n_tasks, n_steps, n_envs)
    :param adapted_params: θ', each of shape (n_tasks, \*shape)
    :param meta_params: φ, same shapes
    :param direction: x, same shapes
    :param surrogate: h
    :param advantages: A_t, (n_tasks, n_steps, n_envs); for the linear h returns-to-go will do
    :param weights: (n_tasks, n_steps, n_envs), sum to one per task
    :param episode_starts: (n_tasks, n_steps, n_envs) bool
    :param episode_ends: (n_tasks, n_steps, n_envs) bool
    :param gamma: discount factor in [0, 1]
    :param reg_coef: λ > 0
    :param state_distance: θ -> d²(π_φ(·∣s_t), π_θ(·∣s_t)), (n_tasks, n_steps, n_envs); ``None`` for Alg(3), whose
        distance is no average over states
    :param baseline_features: f_t, (n_tasks, n_steps, n_envs, n_features), 0 outside the mask, of a baseline that is
        fitted to the same data; ``None`` if the baseline does not depend on φ
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
    """Project each task's values, (n_tasks, n_steps, n_envs), on the features by least squares."""
    f = features.flatten(1, 2).double()
    weights = th.linalg.solve(ridge_matrix(f), f.mT @ values.flatten(1, 2)[..., None].double())
    return (f @ weights).reshape(values.shape).to(values)


def _directional_derivative(
    function: Callable[[Params], th.Tensor], params: Params, direction: Params
) -> tuple[th.Tensor, th.Tensor]:
    """f(params) and, elementwise, ⟨∇f(params), direction⟩, by two backward passes."""
    leaves = require_grad(params)
    value = function(leaves)
    dummy = th.ones_like(value, requires_grad=True)
    gradient = grad((value * dummy).sum(), leaves, create_graph=True)
    total = th.stack([(gradient[name] * direction[name]).sum() for name in direction]).sum()
    return value.detach(), th.autograd.grad(total, dummy)[0]


def unrolled_hypergradient(adapted_params: Params, meta_params: Params, cotangent: Params) -> Params:
    r"""
    Compute [dθ'/dφ]ᵀ ∇_θ J(θ') by differentiating through the steps of the inner solver.

    :param adapted_params: θ' with its graph, from :func:`~sb3_bomrl.core.inner_solvers.solve_inner` with
        ``differentiable=True``
    :param meta_params: φ, the leaves of that graph, each of shape (n_tasks, \*shape)
    :param cotangent: ∇_θ J(θ'), same shapes
    :return: hypergradient per task, same shapes
    """
    check_same_structure("cotangent", cotangent, "adapted_params", adapted_params)
    total = th.stack([(adapted_params[name] * value.detach()).sum() for name, value in cotangent.items()]).sum()
    return grad(total, meta_params)


def first_order_hypergradient(cotangent: Params) -> Params:
    r"""
    Return ∇_θ J(θ'), the hypergradient with dθ'/dφ replaced by the identity.

    :param cotangent: ∇_θ J(θ'), each of shape (n_tasks, \*shape)
    :return: the same
    """
    return cotangent
