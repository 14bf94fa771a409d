"""What the choices of the benchmark of signals do to a meta-batch."""

import numpy as np
import pytest
import torch as th

from benchmarks import gradient_signal
from benchmarks.gradient_signal import make_standing_still
from benchmarks.gradient_signal_choices import (
    CHOICES,
    clip_to_median,
    clipped,
    implicit,
    single_task_gradients,
    take_rollout,
    take_tasks,
    with_query_part,
)
from benchmarks.locomotion.methods import settings_of
from sb3_bomrl.core.params import flatten
from sb3_bomrl.types import Experience, Rollout

N_TASKS, N_ENVS = 5, 8


@pytest.fixture(scope="module")
def recorded():
    """A model, and a meta-batch of its own."""
    found = []

    def record(model, data):
        found.append(data)
        return implicit(model, data)

    tiny = {"n_envs": N_TASKS * N_ENVS, "meta_batch_size": N_TASKS, "n_steps": 50, "n_inner_steps": 10}
    settings = {**settings_of("bomrl-alg1", "Navigation2D"), **tiny, "normalize_advantage": True}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gradient_signal, "settings_of", lambda *_: dict(settings))
        patch.setattr(gradient_signal.StandingBOMRL, "choices", {"record": record})
        model = make_standing_still("Navigation2D", "trained")
        model.samples(1)
    return model, found[0]


def vector(gradient):
    return flatten({name: value[None] for name, value in gradient.gradient.items()})[0]


def with_query_rollout(model, data, **fields):
    """The meta-batch with other data in its query rollout, and what training would make of them."""
    rollout = model.make_collector(model.env, model.task_generator).estimate(data.query.rollout._replace(**fields))
    return data._replace(query=Experience(rollout, model.full_batch(rollout, is_query=True)))


def with_query_episodes(model, data, envs):
    """The meta-batch with the query episodes of some of each task's environments, in the order given."""
    rollout = data.query.rollout
    fields = {name: value[:, :, envs] for name, value in rollout._asdict().items() if name != "final_observations"}
    assert th.equal(rollout.truncated.all(2), rollout.truncated.any(2))  # all are cut off at the same steps
    final = rollout.final_observations.unflatten(0, (-1, N_ENVS))[:, envs].flatten(0, 1)
    return with_query_rollout(model, data, **fields, final_observations=final)


def test_all_query_episodes_are_the_meta_gradient_of_training(recorded):
    model, data = recorded
    expected, found = model.meta_gradient(*data), with_query_part(1)(model, data)
    # the file's hypergradient is another one, and the choice does not depend on it
    assert model.hypergradient == "implicit_sampling"
    assert not th.allclose(vector(expected), vector(found), rtol=0.1)
    expected = implicit(model, data)
    assert th.equal(vector(expected), vector(found))
    assert th.equal(expected.task_norms, found.task_norms)


@pytest.mark.parametrize("n_parts", [2, 4])
def test_episodes_that_repeat_the_part_add_nothing(recorded, n_parts):
    model, data = recorded
    envs = th.arange(N_ENVS) % (N_ENVS // n_parts)
    found, expected = with_query_part(n_parts)(model, data), implicit(model, with_query_episodes(model, data, envs))
    th.testing.assert_close(vector(found), vector(expected), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("n_parts", [2, 4])
def test_a_part_does_not_see_the_other_episodes(recorded, n_parts):
    model, data = recorded
    rewards = data.query.rollout.rewards.clone()
    rewards[:, :, N_ENVS // n_parts :] *= -3.0  # would move the baseline, the mean and the scale
    changed = with_query_rollout(model, data, rewards=rewards)
    choice = with_query_part(n_parts)
    assert th.equal(vector(choice(model, data)), vector(choice(model, changed)))
    assert not th.allclose(vector(implicit(model, data)), vector(implicit(model, changed)), rtol=0.1)


def test_parts_are_whole(recorded):
    with pytest.raises(ValueError, match="n_parts must divide the 8 environments of a task, got 3"):
        with_query_part(3)(*recorded)


def test_fewer_query_episodes_are_noisier(recorded):
    model, data = recorded
    orders = np.random.default_rng(0).permuted(np.tile(np.arange(N_ENVS), (12, 1)), axis=1)
    shuffled = [with_query_episodes(model, data, th.from_numpy(order)) for order in orders]

    def spread(n_parts):
        choice = with_query_part(n_parts)
        return float(th.stack([vector(choice(model, other)) for other in shuffled]).var(0).sum())

    whole, half, quarter = spread(1), spread(2), spread(4)
    assert whole < 1e-6 * half
    assert 1.2 * half < quarter


def test_final_observations_stay_with_their_steps():
    index = th.arange(4 * 3 * 6).reshape(4, 3, 6)
    truncated = th.rand(index.shape, generator=th.Generator().manual_seed(0)) < 0.5
    fields = dict.fromkeys(Rollout._fields, index)
    fields |= {"truncated": truncated, "mask": truncated, "final_observations": index[truncated][:, None]}
    rollout = Rollout(**fields)
    part = take_rollout(rollout, slice(1, 3), slice(2, 5))
    assert th.equal(part.rewards, index[1:3, :, 2:5])
    assert 0 < part.truncated.sum() < part.truncated.numel()
    assert th.equal(part.final_observations[:, 0], part.rewards[part.truncated])


def test_the_meta_gradient_is_the_mean_of_those_of_single_tasks(recorded):
    model, data = recorded
    whole, tasks = implicit(model, data), single_task_gradients(model, data)
    assert len(tasks) == N_TASKS
    th.testing.assert_close(th.stack([vector(task) for task in tasks]).mean(0), vector(whole), rtol=1e-3, atol=1e-7)
    th.testing.assert_close(th.cat([task.task_norms for task in tasks]), whole.task_norms, rtol=1e-3, atol=0.0)


@pytest.mark.parametrize("mode", ["implicit_sampling", "unrolled"])
def test_the_data_of_a_task_are_whole(recorded, mode):
    """Other hypergradients read all of them: support rollouts, their cut-off episodes, solutions."""
    model, data = recorded
    one = CHOICES[mode](model, take_tasks(data, slice(2, 3)))
    th.testing.assert_close(one.task_norms, CHOICES[mode](model, data).task_norms[2:3], rtol=1e-3, atol=0.0)


def test_clipped_tasks_are_those_beyond_the_median(recorded):
    model, data = recorded
    norms, found = implicit(model, data).task_norms, clipped(model, data)
    median = norms.sort().values[N_TASKS // 2]
    th.testing.assert_close(found.task_norms, norms.minimum(median), rtol=1e-3, atol=0.0)
    gradients = th.stack([vector(task) for task in single_task_gradients(model, data)]).double()
    expected = sum(g * min(1.0, float(median) / float(g.norm())) for g in gradients) / N_TASKS
    th.testing.assert_close(vector(found).double(), expected, rtol=1e-3, atol=1e-6)
    assert found.solve.residual.shape == (N_TASKS,)


def test_clipping_to_the_median():
    directions = th.tensor([[1.0, 0.0, 0.0], [0.0, 0.6, 0.8], [0.0, 0.0, 1.0], [0.6, 0.8, 0.0]])

    def clip(norms):
        scaled = directions * th.tensor(norms)[:, None]
        found = clip_to_median({"a": scaled[:, :1], "b": scaled[:, 1:].reshape(4, 2, 1)})
        assert found["b"].shape == (4, 2, 1)
        return flatten(found)

    # of an even number, half way between the two in the middle
    th.testing.assert_close(clip([1.0, 4.0, 2.0, 100.0]), directions * th.tensor([1.0, 3.0, 2.0, 3.0])[:, None])
    th.testing.assert_close(clip([2.0] * 4), 2.0 * directions)
    assert th.equal(clip([0.0, 0.0, 0.0, 5.0]), th.zeros(4, 3))
