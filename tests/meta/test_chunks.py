"""Chunks of tasks cover every task once and change nothing."""

from functools import partial

import pytest
import torch as th

from sb3_bomrl.core.inner_solvers import InnerSolver
from sb3_bomrl.core.params import flatten
from sb3_bomrl.meta import chunks as meta_chunks
from sb3_bomrl.meta.chunks import Chunks, over_tasks, sample_chunks, task_chunks
from sb3_bomrl.meta.gradients import bomrl_meta_gradient
from sb3_bomrl.meta.lower_level import LowerLevel, adapt
from sb3_bomrl.types import Rollout


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
    assert [tasks.stop - tasks.start for tasks in chunks.tasks] == sizes
    assert th.equal(th.cat([th.arange(n_tasks)[tasks] for tasks in chunks.tasks]), th.arange(n_tasks))
    assert chunks.is_small == (len(sizes) == 1)
    assert task_chunks(actor, batch, sizes[-1]) == chunks


def test_samples_are_cut_into_equal_parts(make_actor, monkeypatch):
    actor = make_actor("gaussian")
    monkeypatch.setattr(meta_chunks, "ACTIVATIONS_AT_ONCE", 4 * actor.n_units)
    parts = sample_chunks(actor, 10)
    assert [len(range(10)[part]) for part in parts] == [4, 4, 2]
    assert sample_chunks(actor, 3) == [slice(0, 3)]


def test_any_tree_is_cut_and_joined(draw_rollout):
    rollout = draw_rollout(n_tasks=3)
    chunks = Chunks([slice(0, 2), slice(2, 3)], parallel=False, is_small=True)
    seen = []

    def function(tensor, tree, part):
        seen.append(part)
        return {"sum": tensor + tree["a"][0], "none": None}, (part.rewards, part.n_tasks * th.ones(part.n_tasks))

    tensor, tree = th.arange(3.0), {"a": (th.arange(3.0), None)}
    joined, (rewards, sizes) = over_tasks(function, tensor, tree, rollout, chunks=chunks)
    assert joined["none"] is None
    assert joined["sum"].tolist() == [0.0, 2.0, 4.0]
    assert th.equal(rewards, rollout.rewards)
    assert sizes.tolist() == [2, 2, 1]
    assert [part.n_tasks for part in seen] == [2, 1]
    joined_final = th.cat([part.final_observations for part in seen])
    assert th.equal(joined_final, rollout.final_observations)


def test_a_part_of_a_rollout_has_its_own_final_observations(draw_rollout):
    rollout = draw_rollout(n_tasks=3)
    per_task = rollout.truncated.sum((1, 2)).tolist()
    for task in range(3):
        part = rollout.of_tasks(slice(task, task + 1))
        start = sum(per_task[:task])
        assert th.equal(part.final_observations, rollout.final_observations[start : start + per_task[task]])
        assert th.equal(part.observations, rollout.observations[task : task + 1])


@pytest.fixture
def draw_rollout():
    def draw(n_tasks: int) -> Rollout:
        generator = th.Generator().manual_seed(0)
        rewards = th.randn(n_tasks, 4, 2, generator=generator)
        ends = rewards > 0.3
        final = th.randn(int(ends.sum()), 2, generator=generator)
        observations = th.randn(n_tasks, 4, 2, 2, generator=generator)
        return Rollout(observations, rewards, rewards, rewards, ends, ends, ends, final, ends, rewards, rewards)

    return draw


@pytest.mark.parametrize("kind", ["gaussian", "categorical"])
@pytest.mark.parametrize("hypergradient", ["implicit", "unrolled", "first_order"])
def test_chunks_change_nothing(kind, hypergradient, make_actor, draw_params, draw_batch):
    actor = make_actor(kind)
    phi = draw_params(actor, 5, 1)
    support, query = draw_batch(actor, phi, 30, 2), draw_batch(actor, draw_params(actor, 5, 3), 20, 4)
    lower_level = partial(LowerLevel, actor, distance="kl_meta_task", surrogate="sigmoid", reg_coef=5.0)
    free = InnerSolver("adam", 0.02, 15, max_kl=float("inf"))
    solver = free._replace(max_kl=float(adapt(lower_level(support), phi, free).kl.median()))  # some stop before others
    results = []
    for tasks_per_chunk, n_chunks in ((None, 1), (2, 3), (1, 5)):
        chunks = task_chunks(actor, support, tasks_per_chunk)
        assert len(chunks.tasks) == n_chunks
        adapted = over_tasks(lambda batch, phi: adapt(lower_level(batch), phi, solver), support, phi, chunks=chunks)

        def of_tasks(batch, phi, theta, query):
            return bomrl_meta_gradient(lower_level(batch), phi, theta, query, hypergradient, solver, 4, 0.1)

        results.append((adapted, over_tasks(of_tasks, support, phi, adapted.params, query, chunks=chunks)))
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
