"""Hypergradients of lower levels with known solutions, without a policy."""

from functools import partial

import pytest
import torch as th

from sb3_bomrl.core.hypergradient import (
    first_order_hypergradient,
    implicit_hypergradient,
    score_function_sampling_term,
    unrolled_hypergradient,
)
from sb3_bomrl.core.linear_solve import SolveStatus, conjugate_gradient
from sb3_bomrl.core.params import flatten, require_grad
from sb3_bomrl.core.surrogates import linear, sigmoid
from sb3_bomrl.types import Params

N_TASKS = 3
SOLVE = partial(conjugate_gradient, max_iterations=50, tolerance=1e-13)


def draw(seed: int, *shape: int) -> th.Tensor:
    return th.randn(*shape, generator=th.Generator().manual_seed(seed), dtype=th.double)


def split(vector: th.Tensor) -> Params:
    """(n_tasks, 5) -> two parameters."""
    return {"weight": vector[:, :4].reshape(-1, 2, 2), "bias": vector[:, 4:]}


HESSIAN = (lambda root: root @ root.mT + th.eye(5).double())(draw(0, N_TASKS, 5, 5))
MIXED = draw(1, N_TASKS, 5, 5)


def quadratic(theta: Params, phi: Params) -> th.Tensor:
    """½ θᵀHθ − θᵀMφ with the minimiser H⁻¹Mφ."""
    t, p = flatten(theta), flatten(phi)
    return 0.5 * th.einsum("ni,nij,nj->n", t, HESSIAN, t) - th.einsum("ni,nij,nj->n", t, MIXED, p)


@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_implicit_on_a_quadratic_is_the_dense_formula(damping):
    """[dθ'/dφ]ᵀ c = Mᵀ (H + δI)⁻¹ c."""
    phi, cotangent = draw(2, N_TASKS, 5), draw(3, N_TASKS, 5)
    theta = th.linalg.solve(HESSIAN, MIXED @ phi[..., None]).squeeze(-1)
    got, info = implicit_hypergradient(
        quadratic, split(theta), split(phi), split(cotangent), partial(SOLVE, damping=damping)
    )
    damped = HESSIAN + damping * th.eye(5).double()
    expected = (MIXED.mT @ th.linalg.solve(damped, cotangent[..., None])).squeeze(-1)
    assert th.allclose(flatten(got), expected, rtol=1e-9, atol=1e-10)
    assert info.status.tolist() == [SolveStatus.CONVERGED] * N_TASKS


def test_the_sampling_term_is_part_of_the_mixed_derivative():
    """With S the matrix of the sampling term, [dθ'/dφ]ᵀ c = (Mᵀ − Sᵀ) H⁻¹ c."""
    phi, theta, cotangent, extra = draw(2, N_TASKS, 5), draw(4, N_TASKS, 5), draw(3, N_TASKS, 5), draw(5, N_TASKS, 5, 5)
    got, _ = implicit_hypergradient(
        quadratic,
        split(theta),
        split(phi),
        split(cotangent),
        SOLVE,
        lambda x: split((extra.mT @ flatten(x)[..., None]).squeeze(-1)),
    )
    expected = ((MIXED - extra).mT @ th.linalg.solve(HESSIAN, cotangent[..., None])).squeeze(-1)
    assert th.allclose(flatten(got), expected, rtol=1e-9, atol=1e-10)


def test_implicit_of_a_nonlinear_lower_level_is_the_derivative_of_its_solution():
    """F = θ⁴/4 − θφ³ in every entry has its stationary point at θ' = φ, whose derivative is the identity."""

    def quartic(theta: Params, phi: Params) -> th.Tensor:
        t, p = flatten(theta), flatten(phi)
        return (t**4 / 4 - t * p**3).sum(1)

    phi, cotangent = draw(2, N_TASKS, 5), draw(3, N_TASKS, 5)
    got, _ = implicit_hypergradient(quartic, split(phi), split(phi), split(cotangent), SOLVE)
    assert th.allclose(flatten(got), cotangent, rtol=1e-7)


def test_singular_but_consistent_systems_are_solved():
    """F = ½ (Σθ − Σφ)²: the Hessian has rank one, the cotangent lies in its range."""

    def rank_one(theta: Params, phi: Params) -> th.Tensor:
        return 0.5 * (flatten(theta).sum(1) - flatten(phi).sum(1)).square()

    phi, ones = draw(2, N_TASKS, 5), th.ones(N_TASKS, 5).double()
    got, info = implicit_hypergradient(rank_one, split(phi), split(phi), split(2 * ones), SOLVE)
    assert th.allclose(flatten(got), 2 * ones)
    assert info.status.tolist() == [SolveStatus.CONVERGED] * N_TASKS


def test_negative_curvature_in_one_task_leaves_the_others_right():
    saddle = HESSIAN.clone()
    saddle[1] = -saddle[1]

    def indefinite(theta: Params, phi: Params) -> th.Tensor:
        t, p = flatten(theta), flatten(phi)
        return 0.5 * th.einsum("ni,nij,nj->n", t, saddle, t) - th.einsum("ni,nij,nj->n", t, MIXED, p)

    phi, cotangent = draw(2, N_TASKS, 5), draw(3, N_TASKS, 5)
    got, info = implicit_hypergradient(indefinite, split(phi), split(phi), split(cotangent), SOLVE)
    assert info.status.tolist() == [SolveStatus.CONVERGED, SolveStatus.NEGATIVE_CURVATURE, SolveStatus.CONVERGED]
    expected = (MIXED.mT @ th.linalg.solve(HESSIAN, cotangent[..., None])).squeeze(-1)
    assert th.allclose(flatten(got)[[0, 2]], expected[[0, 2]], rtol=1e-9, atol=1e-10)
    assert th.equal(flatten(got)[1], th.zeros(5).double())  # stopped at the last good iterate, x = 0


def test_unrolled_follows_the_graph_and_first_order_does_not():
    phi = require_grad(split(draw(2, N_TASKS, 5)))
    adapted = {name: value.sin() for name, value in phi.items()}
    cotangent = split(draw(3, N_TASKS, 5))
    got = unrolled_hypergradient(adapted, phi, cotangent)
    for name, value in phi.items():
        assert th.allclose(got[name], value.detach().cos() * cotangent[name])
    assert first_order_hypergradient(cotangent) is cotangent


def test_arguments_that_do_not_fit_are_refused():
    phi, other = split(draw(2, N_TASKS, 5)), {"weight": draw(2, N_TASKS, 5)}
    with pytest.raises(ValueError, match="adapted_params must have the names and shapes of meta_params"):
        implicit_hypergradient(quadratic, other, phi, phi, SOLVE)
    with pytest.raises(ValueError, match="cotangent must have the names and shapes of meta_params"):
        implicit_hypergradient(quadratic, phi, phi, other, SOLVE)
    with pytest.raises(ValueError, match="cotangent must have the names and shapes of adapted_params"):
        unrolled_hypergradient(phi, phi, other)


@pytest.mark.parametrize("surrogate", [linear, sigmoid])
@pytest.mark.parametrize("with_distance", [False, True])
def test_the_scans_are_the_double_sums_of_the_equation(surrogate, with_distance):
    """Eq. (A6) with a loop over every pair of steps; two episodes after one another in every environment."""
    n_steps, n_envs, gamma, reg_coef = 7, 2, 0.8, 0.6
    features, shape = draw(0, N_TASKS, n_steps, n_envs, 5), (N_TASKS, n_steps, n_envs)
    phi, theta, x = split(draw(1, N_TASKS, 5)), split(draw(2, N_TASKS, 5)), split(draw(3, N_TASKS, 5))
    advantages, weights = draw(4, *shape), draw(5, *shape).abs()
    weights = weights / weights.sum((1, 2), keepdim=True)
    starts, ends = th.zeros(shape, dtype=th.bool), th.zeros(shape, dtype=th.bool)
    starts[:, 0] = ends[:, -1] = True
    for env, start in enumerate((3, 5)):
        starts[:, start, env] = ends[:, start - 1, env] = True

    def log_prob(params: Params) -> th.Tensor:
        return -0.1 * th.einsum("nted,nd->nte", features, flatten(params)).square()

    def state_distance(params: Params) -> th.Tensor:
        return th.einsum("nted,nd->nte", features, flatten(params)) ** 2

    got = score_function_sampling_term(
        log_prob, theta, phi, x, surrogate, advantages, weights, starts, ends, gamma, reg_coef,
        state_distance if with_distance else None,
    )  # fmt: skip

    flat_phi, flat_theta, flat_x = flatten(phi), flatten(theta), flatten(x)
    for task in range(N_TASKS):
        expected = th.zeros(5).double()
        episodes = [(e, range(a, b)) for e, cut in enumerate((3, 5)) for a, b in ((0, cut), (cut, n_steps))]
        f, a, w = features[task], advantages[task], weights[task]
        score = -0.2 * (f @ flat_phi[task])[..., None] * f
        log_ratio = -0.1 * (f @ flat_theta[task]) ** 2 + 0.1 * (f @ flat_phi[task]) ** 2
        r, psi = log_ratio.exp(), (-0.2 * (f @ flat_theta[task])[..., None] * f) @ flat_x[task]
        s = th.sigmoid(2 * (r - 1))
        first = th.ones_like(r) if surrogate is linear else 4 * s * (1 - s)
        second = th.zeros_like(r) if surrogate is linear else 8 * s * (1 - s) * (1 - 2 * s)
        g = -w * first * r * psi / reg_coef
        c = 2 * (f @ flat_theta[task]) * (f @ flat_x[task]) * with_distance
        mean = (g * a + w * c).sum()
        for env, steps in episodes:
            for t in steps:
                for u in steps:
                    if u < t:
                        expected += (g[t, env] * a[t, env] + w[t, env] * (c[t, env] - mean)) * score[u, env]
                    elif u > t:
                        expected += g[t, env] * gamma ** (u - t) * a[u, env] * score[u, env]
                    else:
                        own = w[t, env] * second[t, env] * r[t, env] ** 2 * psi[t, env] * a[t, env] / reg_coef
                        expected += own * score[u, env]
        assert th.allclose(flatten(got)[task], expected, rtol=1e-9, atol=1e-12)
