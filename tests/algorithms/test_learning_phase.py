"""Chunks and sub-samples of the learning phase, as models use them."""

import pytest
import torch as th
from torch.distributions import kl_divergence

from sb3_bomrl import BOMRL, EMAML, FOMAML, MAML, ProMP, Reptile
from sb3_bomrl.algorithms import meta_algorithm, outer
from sb3_bomrl.algorithms.outer import mean_fisher, mean_kl
from sb3_bomrl.core.params import flatten, grad, require_grad, stack
from sb3_bomrl.meta.hypergradients import HYPERGRADIENTS
from sb3_bomrl.policies.actor import Actor
from sb3_bomrl.types import Batch


def double_backward(kl, params):
    phi = require_grad(params)
    slope = flatten({name: g[None] for name, g in grad(kl(phi), phi, create_graph=True).items()})
    return lambda v: flatten({k: g[None] for k, g in grad((slope * v).sum(), phi, retain_graph=True).items()})


@pytest.fixture
def setting(tiny):
    actor = Actor(tiny.model().policy.double())
    generator = th.Generator().manual_seed(0)
    obs = th.randn(3, 12, 2, generator=generator, dtype=th.double)
    weights = th.rand(3, 12, generator=generator, dtype=th.double)
    batch = Batch(obs, None, None, None, weights / weights.sum(1, keepdim=True))
    v = th.randn(1, sum(p.numel() for p in actor.params().values()), generator=generator, dtype=th.double)
    return actor, batch, v


@pytest.mark.parametrize("n_chunks", [1, 4])
def test_fisher_products_are_second_derivatives_of_the_mean_kl(setting, n_chunks, monkeypatch):
    actor, batch, v = setting
    monkeypatch.setattr(outer, "sample_chunks", lambda actor, n: [slice(i, None, n_chunks) for i in range(n_chunks)])
    got = mean_fisher(actor, actor.params(), batch)(v)
    expected = double_backward(mean_kl(actor, actor.params(), batch), actor.params())(v)
    assert th.allclose(got, expected, rtol=1e-10, atol=1e-13)


def test_the_sub_sampled_fisher_matrix_is_that_of_every_third_state(setting):
    actor, batch, v = setting
    params = actor.params()
    got = mean_fisher(actor, params, batch, 3)(v)
    obs, w = batch.observations[:, ::3].flatten(0, 1)[None], batch.weights[:, ::3].flatten()
    fixed = actor({k: p[None] for k, p in params.items()}, obs)

    def kl(phi):
        return (w / w.sum() * kl_divergence(fixed, actor({k: p[None] for k, p in phi.items()}, obs))).sum()

    assert th.allclose(got, double_backward(kl, params)(v), rtol=1e-10, atol=1e-13)
    assert not th.allclose(got, mean_fisher(actor, params, batch)(v), rtol=1e-2)


METHODS = [(BOMRL, {"hypergradient": name, "inner_lr": 0.05}) for name in HYPERGRADIENTS]
METHODS += [(cls, {}) for cls in (MAML, FOMAML, EMAML, ProMP, Reptile)]


@pytest.mark.parametrize(("cls", "kwargs"), METHODS)
def test_one_task_at_a_time_learns_the_same(tiny, cls, kwargs, monkeypatch):
    results, original = [], meta_algorithm.over_tasks
    for tasks_per_chunk, n_chunks in ((None, 1), (1, 2)):
        seen = []

        def over_tasks(*args, chunks, seen=seen):
            seen.append(len(chunks.tasks))
            return original(*args, chunks=chunks)

        monkeypatch.setattr(meta_algorithm, "over_tasks", over_tasks)
        model = tiny.model(cls=cls, tasks_per_chunk=tasks_per_chunk, **kwargs)
        results.append(tiny.params(model.learn(2 * tiny.iteration_of(model))))
        assert set(seen) == {n_chunks}
        assert len(seen) >= 2 * (model.n_support_phases + 1)  # the lower level and the meta-gradient
    for name, value in results[0].items():
        assert th.allclose(results[1][name], value, rtol=1e-3, atol=1e-5), name


def test_sub_sampling_changes_the_step_but_not_its_radius(tiny):
    models = [tiny.model(sub_sampling_factor=k, line_search=False) for k in (1, 2)]
    for model in models:
        model.learn(tiny.iteration, log_interval=None)
        assert 0 < model.logger.name_to_value["outer/kl"] <= model.max_kl
    assert tiny.differ(*map(tiny.params, models))


@pytest.mark.parametrize("name", ["sub_sampling_factor", "tasks_per_chunk", "n_rollout_threads"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True])
def test_bad_values_are_named(tiny, name, value):
    model = tiny.model()
    setattr(model, name, value)
    with pytest.raises(ValueError, match=f"{name} must be an integer of at least 1, got {value}"):
        model._check_arguments()


def test_threads_of_rollouts_and_learning_are_kept_apart(tiny):
    before = th.get_num_threads()
    seen = []
    try:
        th.set_num_threads(2)
        model = tiny.model()
        model.n_rollout_threads = 3
        model.learn(tiny.iteration, callback=lambda *_: seen.append(th.get_num_threads()) or True)
        assert set(seen) == {3}
        assert th.get_num_threads() == 2
    finally:
        th.set_num_threads(before)


def test_double_precision_on_request(tiny):
    model = tiny.model()
    model.policy.double()
    model.learn(tiny.iteration)
    assert all(p.dtype == th.double for p in model.policy.parameters())
    collector = model.make_collector(model.env, model.task_generator)
    support = model.experience(collector.collect([None] * 2, stack(model.actor.params(), 2), model.rollout_buffer))
    assert support.batch.weights.dtype == support.batch.observations.dtype == th.double
