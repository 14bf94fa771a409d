"""Multi-layer perceptrons with stacked parameters: one batched matrix product per layer."""

from collections.abc import Sequence
from typing import NamedTuple

import torch as th

from sb3_bomrl.types import Params


class Layer(NamedTuple):
    """
    One affine layer and its activation.

    :param weight: name of the weight among the parameters
    :param bias: name of the bias, ``None`` for none
    :param activation: ``"tanh"``, ``"relu"`` or ``"identity"``
    """

    weight: str
    bias: str | None
    activation: str


def stacked_mlp(params: Params, layers: Sequence[Layer], inputs: th.Tensor) -> th.Tensor:
    r"""
    Evaluate each task's perceptron at the task's own inputs.

    The logistic function takes a third of the time of the hyperbolic tangent. As tanh(z) = 2σ(2z) − 1, it replaces
    it, with other weights:

        W tanh(z) + b = (2W) σ(2z) + (b − W1).

    The last product is transposed, so that the outputs lie in memory by component: sums over the components of an
    action and the gradient of the last weight then run along the samples.

    :param params: stacked; weights (n_tasks, n_out, n_in), biases (n_tasks, n_out)
    :param layers: first to last
    :param inputs: (n_tasks, n_samples, n_in)
    :return: (n_tasks, n_samples, n_out), with the memory layout of (n_tasks, n_out, n_samples)
    """
    x, is_logistic = inputs, False
    for layer in layers[:-1]:
        weight, bias = _affine(params, layer, is_logistic)
        x = _activate(_product(weight, bias, x), layer.activation)
        is_logistic = layer.activation == "tanh"
    weight, bias = _affine(params, layers[-1], is_logistic)
    xt = x.mT
    out = weight.bmm(xt) if bias is None else th.baddbmm(bias[:, :, None], weight, xt)
    out = _activate(out, layers[-1].activation)
    return (2.0 * out - 1.0 if layers[-1].activation == "tanh" else out).mT


def _affine(params: Params, layer: Layer, is_logistic: bool) -> tuple[th.Tensor, th.Tensor | None]:
    """Weight and bias of a layer whose inputs are σ(2z) in place of tanh(z) if ``is_logistic``."""
    weight = params[layer.weight]
    bias = None if layer.bias is None else params[layer.bias]
    scale = 2.0 if layer.activation == "tanh" else 1.0
    if is_logistic:
        row_sums = weight.sum(-1)
        bias = -row_sums if bias is None else bias - row_sums
        weight = 2.0 * scale * weight
    elif scale != 1.0:
        weight = scale * weight
    return weight, bias if bias is None or scale == 1.0 else scale * bias


def _product(weight: th.Tensor, bias: th.Tensor | None, x: th.Tensor) -> th.Tensor:
    return x.bmm(weight.mT) if bias is None else th.baddbmm(bias[:, None], x, weight.mT)


def _activate(z: th.Tensor, activation: str) -> th.Tensor:
    """Apply the activation, with σ in place of tanh."""
    if activation == "tanh":
        return th.sigmoid(z)
    return th.relu(z) if activation == "relu" else z
