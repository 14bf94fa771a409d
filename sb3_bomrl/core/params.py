"""Parameters as values: dictionaries of tensors with a leading task axis."""

import torch as th

from sb3_bomrl.types import Params


def stack(params: Params, n_tasks: int) -> Params:
    r"""
    Copy one set of parameters to every task.

    :param params: each of shape \*shape
    :param n_tasks: number of tasks, at least 1
    :return: independent copies, each of shape (n_tasks, \*shape)
    """
    return {name: value.detach().expand(n_tasks, *value.shape).clone() for name, value in params.items()}


def mean_over_tasks(params: Params) -> Params:
    r"""
    Average stacked parameters over the task axis.

    :param params: each of shape (n_tasks, \*shape)
    :return: each of shape \*shape
    """
    return {name: value.mean(0) for name, value in params.items()}


def flatten(params: Params) -> th.Tensor:
    r"""
    Join all parameters of each task to one vector, in the dictionary's order.

    :param params: each of shape (n_tasks, \*shape)
    :return: (n_tasks, n_params)
    """
    return th.cat([value.reshape(len(value), -1) for value in params.values()], dim=1)


def unflatten(vector: th.Tensor, like: Params) -> Params:
    r"""
    Undo :func:`flatten`.

    :param vector: (n_tasks, n_params)
    :param like: parameters with the names and shapes to restore, (n_tasks, \*shape)
    :return: views of ``vector``, each of shape (n_tasks, \*shape)
    """
    pieces = vector.split([value[0].numel() for value in like.values()], dim=1)
    return {name: piece.reshape(value.shape) for (name, value), piece in zip(like.items(), pieces, strict=True)}


def require_grad(params: Params) -> Params:
    """
    Return leaves with the same values, cut from any graph.

    :param params: parameters of any shape
    :return: the same values, each requiring a gradient
    """
    return {name: value.detach().requires_grad_() for name, value in params.items()}


def grad(output: th.Tensor, params: Params, create_graph: bool = False, retain_graph: bool | None = None) -> Params:
    r"""
    Compute the gradient of a scalar; zeros for a parameter without influence.

    If the scalar is a sum of one term per task, the gradient with respect to stacked parameters holds each task's own.

    :param output: scalar
    :param params: parameters that require a gradient, each of shape (n_tasks, \*shape)
    :param create_graph: build the graph of the gradient, for second derivatives
    :param retain_graph: keep the graph for another backward pass; ``None`` for the value of ``create_graph``
    :return: same shapes as ``params``
    """
    gradients = th.autograd.grad(
        output, list(params.values()), create_graph=create_graph, retain_graph=retain_graph, materialize_grads=True
    )
    return dict(zip(params, gradients, strict=True))


def check_same_structure(name: str, params: Params, like_name: str, like: Params) -> None:
    """
    Require equal parameter names and shapes.

    :param name: name of ``params`` in the error
    :param params: parameters to check
    :param like_name: name of ``like`` in the error
    :param like: parameters to compare with
    :raises ValueError: if names or shapes differ
    """
    shapes, expected = ({k: tuple(v.shape) for k, v in p.items()} for p in (params, like))
    if shapes != expected:
        raise ValueError(f"{name} must have the names and shapes of {like_name}: got {shapes}, expected {expected}")
