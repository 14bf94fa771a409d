"""Parameters as values."""

import pytest
import torch as th

from sb3_bomrl.core.params import (
    check_same_structure,
    flatten,
    grad,
    mean_over_tasks,
    require_grad,
    stack,
    unflatten,
)


def stacked(n_tasks: int = 3) -> dict[str, th.Tensor]:
    """A matrix, a vector and a scalar per task."""
    generator = th.Generator().manual_seed(0)
    shapes = {"weight": (2, 4), "bias": (4,), "temperature": ()}
    return {k: th.randn(n_tasks, *s, generator=generator, dtype=th.float64) for k, s in shapes.items()}


def test_stack_makes_independent_copies_and_mean_undoes_it():
    one = {name: value[0] for name, value in stacked().items()}
    copies = stack(one, 3)
    assert {k: tuple(v.shape) for k, v in copies.items()} == {"weight": (3, 2, 4), "bias": (3, 4), "temperature": (3,)}
    copies["weight"][1] += 1.0
    assert th.equal(copies["weight"][0], one["weight"])
    assert th.equal(copies["weight"][2], one["weight"])
    assert th.allclose(mean_over_tasks(copies)["weight"], one["weight"] + 1 / 3)
    assert not stack({"w": th.ones(2, requires_grad=True)}, 2)["w"].requires_grad


def test_flatten_joins_each_tasks_parameters_in_order():
    params = stacked()
    vector = flatten(params)
    assert vector.shape == (3, 13)
    for task in range(3):
        assert th.equal(vector[task], th.cat([value[task].reshape(-1) for value in params.values()]))


def test_unflatten_undoes_flatten_and_is_differentiable():
    params = stacked()
    back = unflatten(flatten(params), params)
    assert list(back) == list(params)
    assert all(th.equal(back[name], value) for name, value in params.items())
    vector = flatten(params).requires_grad_()
    (unflatten(vector, params)["bias"] * 2).sum().backward()
    assert th.equal(vector.grad, th.tensor([[0.0] * 8 + [2.0] * 4 + [0.0]] * 3, dtype=th.float64))


def test_require_grad_gives_leaves_and_leaves_the_original_alone():
    params = {"w": th.ones(2, 3, requires_grad=True) * 2}
    leaves = require_grad(params)
    assert leaves["w"].is_leaf
    assert leaves["w"].requires_grad
    plain = th.ones(2)
    require_grad({"w": plain})
    assert not plain.requires_grad


def test_grad_of_a_sum_over_tasks_is_every_tasks_gradient_and_zero_without_influence():
    params = require_grad(stacked())

    def one(weight: th.Tensor, bias: th.Tensor) -> th.Tensor:
        return (weight.sum(-2) * bias).sin().sum(-1)

    got = grad(one(params["weight"], params["bias"]).sum(), params)
    for task in range(3):
        leaf = require_grad({k: v[task] for k, v in params.items()})
        expected = th.autograd.grad(one(leaf["weight"], leaf["bias"]), (leaf["weight"], leaf["bias"]))
        assert th.allclose(got["weight"][task], expected[0])
        assert th.allclose(got["bias"][task], expected[1])
    assert th.equal(got["temperature"], th.zeros(3, dtype=th.float64))


def test_grad_with_graph_can_be_differentiated_again():
    params = require_grad({"w": th.tensor([[1.0, 2.0], [3.0, 4.0]])})
    first = grad((params["w"] ** 3).sum(), params, create_graph=True)
    second = grad(first["w"].sum(), params)
    assert th.allclose(second["w"], 6 * params["w"])


def test_structure_check_names_both_sides():
    params = stacked()
    check_same_structure("a", params, "b", stacked())
    for other in ({**params, "bias": params["bias"][:, :2]}, {"weight": params["weight"]}):
        with pytest.raises(
            ValueError, match=r"cotangent must have the names and shapes of meta_params: got .*expected"
        ):
            check_same_structure("cotangent", other, "meta_params", params)
