"""φ stays φ, to the last bit, where an outer step is not taken."""

import pytest
import torch as th

from sb3_bomrl import BOMRL, MAML, ProMP, Reptile

TASKS = [3, 5, 20]  # the mean of so many equal numbers in single precision is not always the number


def model_of(tiny, cls, n_tasks, **kwargs):
    return tiny.model(tiny.goal_vec(n_tasks), cls=cls, meta_batch_size=n_tasks, **kwargs)


@pytest.mark.parametrize("n_tasks", TASKS)
@pytest.mark.parametrize("cls", [BOMRL, MAML])
def test_a_rejected_outer_step_leaves_the_parameters_bitwise(tiny, monkeypatch, cls, n_tasks):
    model = model_of(tiny, cls, n_tasks, line_search=True)
    monkeypatch.setattr(model, "outer_improvement", lambda *args: -1.0)
    rows, before = tiny.log_rows(model), tiny.params(model)
    model.learn(tiny.iteration_of(model))
    assert [row["outer/accepted"] for row in rows] == [0.0]
    tiny.assert_equal(tiny.params(model), before)


@pytest.mark.parametrize("n_tasks", TASKS)
def test_an_undone_epoch_of_promp_leaves_the_parameters_bitwise(tiny, monkeypatch, n_tasks):
    model = model_of(tiny, ProMP, n_tasks, n_adaptation_steps=1, n_epochs=2)
    before, gradient_at, calls = tiny.params(model), model._gradient, []

    def breaks_after_the_first_epoch(*args):
        gradient, kl = gradient_at(*args)
        calls.append(tiny.params(model))
        broken = {name: value * float("nan") for name, value in gradient.per_task.items()}
        return (gradient._replace(per_task=broken) if len(calls) > 1 else gradient), kl

    monkeypatch.setattr(model, "_gradient", breaks_after_the_first_epoch)
    with pytest.raises(FloatingPointError, match="meta-gradient of task 0"):
        model.learn(tiny.iteration_of(model))
    assert tiny.differ(calls[1], before)
    tiny.assert_equal(tiny.params(model), before)


@pytest.mark.parametrize("n_tasks", TASKS)
def test_adapting_by_nothing_leaves_the_parameters_bitwise(tiny, n_tasks):
    model = model_of(tiny, BOMRL, n_tasks, inner_max_kl=1e-30)
    adapted = model.adapt(tiny.goal_vec(1), n_episodes=1)
    tiny.assert_equal(tiny.params(adapted), tiny.params(model))


@pytest.mark.parametrize("n_tasks", TASKS)
def test_reptile_starts_its_step_at_phi(tiny, monkeypatch, n_tasks):
    model = model_of(tiny, Reptile, n_tasks)
    before, original = tiny.params(model), model.meta_gradient

    def no_gradient(*args):
        gradient = original(*args)
        return gradient._replace(per_task={name: th.zeros_like(value) for name, value in gradient.per_task.items()})

    monkeypatch.setattr(model, "meta_gradient", no_gradient)
    model.learn(tiny.iteration_of(model))
    assert model.n_meta_iterations == 1
    tiny.assert_equal(tiny.params(model), before)
