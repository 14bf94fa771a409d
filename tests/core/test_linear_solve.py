"""Batched conjugate gradients against dense solvers, and what they do where they cannot work."""

import pytest
import torch as th

from sb3_bomrl.core.linear_solve import SolveStatus, conjugate_gradient, damped_solve

DIM = 8


def spd(n_tasks: int, seed: int = 0, low: float = 0.5, high: float = 20.0) -> th.Tensor:
    """Symmetric matrices with eigenvalues spread from ``low`` to ``high``."""
    generator = th.Generator().manual_seed(seed)
    q = th.linalg.qr(th.randn(n_tasks, DIM, DIM, generator=generator, dtype=th.float64)).Q
    return q * th.linspace(low, high, DIM, dtype=th.float64) @ q.mT


def right_sides(n_tasks: int, seed: int = 1) -> th.Tensor:
    return th.randn(n_tasks, DIM, generator=th.Generator().manual_seed(seed), dtype=th.float64)


def times(matrices: th.Tensor):
    return lambda v: th.einsum("nij,nj->ni", matrices, v)


@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_solution_equals_a_dense_solver(damping):
    a, b = spd(5), right_sides(5)
    x, info = conjugate_gradient(times(a), b, max_iterations=30, damping=damping, tolerance=1e-12)
    expected = th.linalg.solve(a + damping * th.eye(DIM, dtype=th.float64), b)
    assert th.allclose(x, expected, rtol=1e-9)
    assert (info.status == SolveStatus.CONVERGED).all()
    assert (info.residual <= 1e-12).all()
    assert ((info.n_iterations >= DIM) & (info.n_iterations <= 2 * DIM)).all()


def test_residual_is_that_of_the_solution_when_iterations_run_out():
    a, b = spd(4), right_sides(4)
    for n, damping in ((1, 0.0), (3, 0.0), (5, 0.7)):
        x, info = conjugate_gradient(times(a), b, max_iterations=n, damping=damping, tolerance=1e-12)
        residual = (b - times(a)(x) - damping * x).norm(dim=1) / b.norm(dim=1)
        assert th.allclose(info.residual, residual, rtol=1e-8)
        assert (info.status == SolveStatus.MAX_ITERATIONS).all()
        assert (info.n_iterations == n).all()


def test_error_in_the_energy_norm_is_the_smallest_in_the_krylov_space():
    a, b = spd(1), right_sides(1)
    krylov = th.stack([th.matrix_power(a[0], k) @ b[0] for k in range(4)], dim=1)
    best = krylov @ th.linalg.solve(krylov.T @ a[0] @ krylov, krylov.T @ b[0])
    x, _ = conjugate_gradient(times(a), b, max_iterations=4, tolerance=1e-15)
    assert th.allclose(x[0], best, rtol=1e-6)


def test_tasks_converge_on_their_own():
    a, b = spd(4), right_sides(4)
    a[1] = 3.0 * th.eye(DIM)  # one iteration
    b[2] = 0.0
    b *= th.tensor([1.0, 1e-9, 1.0, 1e9]).double()[:, None]
    together, info = conjugate_gradient(times(a), b, max_iterations=30, tolerance=1e-10)
    assert info.n_iterations[1:3].tolist() == [1, 0]
    assert (info.status == SolveStatus.CONVERGED).all()
    assert (together[2] == 0).all()
    assert info.residual[2] == 0
    for task in range(4):
        alone, one = conjugate_gradient(times(a[task, None]), b[task, None], max_iterations=30, tolerance=1e-10)
        assert th.allclose(together[task], alone[0], rtol=1e-10)
        assert info.n_iterations[task] == one.n_iterations[0]


@pytest.mark.parametrize("dtype", [th.float32, th.float64])
def test_singular_but_consistent_systems_get_the_shortest_solution(dtype):
    """Softmax curvature, diag(π) − ππᵀ: adding a constant to all logits changes nothing."""
    pi = th.softmax(right_sides(6, seed=3), -1).to(dtype)
    a = th.diag_embed(pi) - pi[:, :, None] * pi[:, None, :]
    b = times(a)(right_sides(6, seed=4).to(dtype))
    tolerance = 1e-12 if dtype == th.float64 else 1e-5
    x, info = conjugate_gradient(times(a), b, max_iterations=30, tolerance=tolerance)
    assert x.dtype == dtype
    assert (info.status == SolveStatus.CONVERGED).all()
    expected = (th.linalg.pinv(a.double(), rtol=1e-5) @ b.double()[..., None]).squeeze(-1)
    assert th.allclose(x.double(), expected, rtol=1e-3 if dtype == th.float32 else 1e-8, atol=10 * tolerance)


def test_negative_curvature_stops_one_task_with_its_last_good_iterate():
    a, b = spd(3), right_sides(3)
    a[1] = th.diag(th.tensor([5.0, 4.0, 3.0, 2.0, 1.0, 1.0, 1.0, -2.0]).double())
    x, info = conjugate_gradient(times(a), b, max_iterations=30, tolerance=1e-10)
    assert info.status.tolist() == [SolveStatus.CONVERGED, SolveStatus.NEGATIVE_CURVATURE, SolveStatus.CONVERGED]
    assert th.allclose(x[[0, 2]], th.linalg.solve(a[[0, 2]], b[[0, 2]]), rtol=1e-8)
    n = int(info.n_iterations[1])
    assert n > 0
    before, _ = conjugate_gradient(times(a[1:2]), b[1:2], max_iterations=n, tolerance=1e-10)
    assert th.allclose(x[1:2], before, rtol=1e-12)
    assert th.allclose(info.residual[1], (b[1] - a[1] @ x[1]).norm() / b[1].norm())


@pytest.mark.parametrize("max_iterations", [1, 2, 4, 8])
def test_where_curvature_is_negative_the_iterate_of_the_smallest_residual_is_taken(max_iterations):
    """The second matrix is indefinite: its residual grows by half, to 0.9, before negative curvature is met."""
    a, b = spd(3), right_sides(3)
    a[1] = th.diag(th.tensor([5.0, 4.0, 3.0, 2.0, 1.0, 1.0, 1.0, -2.0]).double())
    last, last_info = conjugate_gradient(times(a), b, max_iterations=max_iterations)
    first = conjugate_gradient(times(a), b, max_iterations=1)[0]
    meets_it = int(last_info.status[1]) == SolveStatus.NEGATIVE_CURVATURE
    assert meets_it == (max_iterations >= 3)

    x, info = conjugate_gradient(times(a), b, max_iterations=max_iterations, may_be_indefinite=True)
    assert th.equal(x[[0, 2]], last[[0, 2]])
    assert th.equal(x[1], first[1] if meets_it else last[1])
    residual = (b - times(a)(x)).norm(dim=1) / b.norm(dim=1)
    assert th.allclose(info.residual, residual, rtol=1e-6, atol=1e-12)
    assert not meets_it or residual[1] < last_info.residual[1] / 1.4
    assert th.equal(info.status, last_info.status)
    assert th.equal(info.n_iterations, last_info.n_iterations)
    assert th.equal(damped_solve(times(a), b, max_iterations, 0.0)[0], x)


def test_an_inconsistent_system_gets_what_a_consistent_part_allows():
    """A state without data: no x reaches what b asks for there, and the last iterate is far off everywhere."""
    a, b = spd(4), right_sides(4)
    a[:, 0], a[:, :, 0] = 0.0, 0.0
    bound = b[:, 0].abs() / b.norm(dim=1)
    info = conjugate_gradient(times(a), b, max_iterations=30, may_be_indefinite=True)[1]
    assert (info.residual >= bound).all()
    assert (info.residual <= 1.0).all()
    last = conjugate_gradient(times(a), b, max_iterations=30)[1]
    assert (last.residual > 1e3).all()


def test_a_system_without_any_good_iterate_gives_zero_and_says_so():
    a, b = -spd(1), right_sides(1)
    x, info = conjugate_gradient(times(a), b, max_iterations=10)
    assert (x == 0).all()
    assert info.status.item() == SolveStatus.NEGATIVE_CURVATURE
    assert info.residual.item() == 1.0


def test_damping_cures_negative_curvature():
    a, b = spd(2) - 2.0 * th.eye(DIM, dtype=th.float64), right_sides(2)
    assert (conjugate_gradient(times(a), b, 30)[1].status == SolveStatus.NEGATIVE_CURVATURE).all()
    x, info = conjugate_gradient(times(a), b, 30, damping=2.0, tolerance=1e-10)
    assert (info.status == SolveStatus.CONVERGED).all()
    assert th.allclose(x, th.linalg.solve(spd(2), b), rtol=1e-8)


def test_numbers_that_are_not_finite_stop_one_task():
    a, b = spd(3), right_sides(3)
    calls = 0

    def broken_in_the_third_call(v: th.Tensor) -> th.Tensor:
        nonlocal calls
        calls += 1
        out = times(a)(v)
        if calls == 3:
            out[0] = float("nan")
        return out

    x, info = conjugate_gradient(broken_in_the_third_call, b, max_iterations=30, tolerance=1e-10)
    assert info.status.tolist() == [SolveStatus.NON_FINITE, SolveStatus.CONVERGED, SolveStatus.CONVERGED]
    assert info.n_iterations[0] == 2
    assert th.equal(x[0], conjugate_gradient(times(a), b, max_iterations=2)[0][0])
    assert th.allclose(x[1:], th.linalg.solve(a[1:], b[1:]), rtol=1e-8)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_right_side_that_is_not_finite_is_reported(value):
    a, b = spd(2), right_sides(2)
    b[0, 3] = value
    x, info = conjugate_gradient(times(a), b, max_iterations=30)
    assert info.status.tolist() == [SolveStatus.NON_FINITE, SolveStatus.CONVERGED]
    assert (x[0] == 0).all()
    assert not info.residual[0] <= 1.0


def test_overflow_keeps_the_last_finite_iterate():
    b = th.ones(1, DIM, dtype=th.float64)
    x, info = conjugate_gradient(lambda v: 1e-320 * v, b, max_iterations=10)
    assert info.status.item() == SolveStatus.NON_FINITE
    assert (x == 0).all()
    assert info.n_iterations.item() == 0


def test_damped_solve_has_the_scale_of_each_matrix():
    th.manual_seed(0)
    root = th.randn(3, 6, 6, dtype=th.double)
    a = root @ root.mT * th.tensor([1e-3, 1.0, 1e4], dtype=th.double)[:, None, None]
    b = th.randn(3, 6, dtype=th.double)
    x, info = damped_solve(lambda v: (a @ v[..., None])[..., 0], b, max_iterations=50, relative_damping=0.1)
    curvature = th.einsum("ni,nij,nj->n", b, a, b) / (b * b).sum(1)
    damped = a + 0.1 * curvature[:, None, None] * th.eye(6, dtype=th.double)
    th.testing.assert_close(x, th.linalg.solve(damped, b), rtol=1e-5, atol=0)
    assert (info.residual < 1e-5).all()


def test_damped_solve_without_damping_is_conjugate_gradients():
    th.manual_seed(0)
    root = th.randn(2, 5, 5, dtype=th.double)
    a, b = root @ root.mT, th.randn(2, 5, dtype=th.double)

    def matvec(v):
        return (a @ v[..., None])[..., 0]

    assert th.equal(damped_solve(matvec, b, 3, 0.0)[0], conjugate_gradient(matvec, b, 3)[0])
    assert (damped_solve(matvec, th.zeros_like(b), 3, 0.1)[0] == 0).all()
