"""Chunks of tasks cover every task once and change nothing."""

import pytest
import torch as th

from sb3_bomrl.core.inner_solvers import InnerSolver
from sb3_bomrl.core.params import flatten
from sb3_bomrl.meta import chunks as meta_chunks
from sb3_bomrl.meta.chunks import task_chunks
from sb3_bomrl.meta.gradients import bomrl_meta_gradient
from sb3_bomrl.meta.lower_level import LowerLevel, adapt


@pytest.mark.parametrize(
    ("n_tasks", "at_once", "sizes"), [(7, None, [7]), (7, 3, [2, 2, 3]), (4, 0, [1] * 4), (6, 2, [2] * 3)]
)
def test_the_size_follows_the_network_and_the_data(
    n_tasks, at_once, sizes, make_actor, draw_params, draw_batch, monkeypatch
):
    actor = make_actor("gaussian")
    batch = draw_batch(actor, draw_params(actor, n_tasks, 1), 30, 2)
    if at_once is not None:
        monkeypatch.setattr(meta_chunks, "ACTIVATIONS_AT_ONCE", at_once * 30 * actor.n_units)
    chunks = task_chunks(actor, batch)
    assert [tasks.stop - tasks.start for tasks in chunks] == sizes
    assert th.equal(th.cat([th.arange(n_tasks)[tasks] for tasks in chunks]), th.arange(n_tasks))
    assert task_chunks(actor, batch, sizes[-1]) == chunks


@pytest.mark.parametrize("kind", ["gaussian", "categorical"])
@pytest.mark.parametrize("hypergradient", ["implicit", "unrolled", "first_order"])
def test_chunks_change_nothing(kind, hypergradient, make_actor, draw_params, draw_batch):
    actor = make_actor(kind)
    phi = draw_params(actor, 5, 1)
    support, query = draw_batch(actor, phi, 30, 2), draw_batch(actor, draw_params(actor, 5, 3), 20, 4)
    free = InnerSolver("adam", 0.02, 15, max_kl=float("inf"))
    reached = adapt(LowerLevel(actor, support, "kl_meta_task", "sigmoid", 5.0), phi, free).kl
    solver = free._replace(max_kl=float(reached.median()))  # some tasks stop before others
    results = []
    for tasks_per_chunk in (None, 2, 1):
        lower = LowerLevel(actor, support, "kl_meta_task", "sigmoid", 5.0, tasks_per_chunk=tasks_per_chunk)
        assert len(lower.chunks) == {None: 1, 2: 3, 1: 5}[tasks_per_chunk]
        adapted = adapt(lower, phi, solver)
        result = bomrl_meta_gradient(lower, None, phi, adapted.params, query, solver, hypergradient, 0.9, 4, 0.1)
        results.append((adapted, result))
    whole, gradient = results[0]
    assert len(set(whole.n_steps.tolist())) > 1
    for adapted, other in results[1:]:
        for got, wanted in zip(adapted[1:], whole[1:], strict=True):
            assert th.allclose(got, wanted, rtol=1e-10)
        assert th.allclose(flatten(adapted.params), flatten(whole.params), rtol=1e-10, atol=1e-12)
        assert th.allclose(other.task_norms, gradient.task_norms, rtol=1e-8)
        for name, value in gradient.gradient.items():
            assert th.allclose(other.gradient[name], value, rtol=1e-7, atol=1e-10)
        if gradient.solve is not None:
            assert th.allclose(other.solve.residual, gradient.solve.residual, rtol=1e-6)
