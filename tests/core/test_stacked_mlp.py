"""Stacked perceptrons against torch's own modules, one task at a time: values, first and second derivatives."""

import itertools

import pytest
import torch as th
from torch import nn
from torch.func import functional_call

from sb3_bomrl.core.params import flatten, grad, require_grad
from sb3_bomrl.core.stacked_mlp import Layer, stacked_mlp
from sb3_bomrl.types import Params

N_TASKS, N_SAMPLES, SIZES = 3, 7, (4, 6, 5, 2)
MODULES = {"tanh": nn.Tanh, "relu": nn.ReLU, "identity": nn.Identity}
CASES = [(activations, True) for activations in itertools.product(("tanh", "relu"), ("tanh", "relu", "identity"))]
CASES += [(("tanh", "tanh"), False), (("relu", "tanh"), False)]


def make(activations: tuple[str, ...], bias: bool) -> tuple[nn.Sequential, list[Layer], Params, th.Tensor]:
    generator = th.Generator().manual_seed(0)
    parts, layers = [], []
    for i, activation in enumerate((*activations, "identity")):
        name = f"{len(parts)}."
        layers.append(Layer(f"{name}weight", f"{name}bias" if bias else None, activation))
        parts += [nn.Linear(SIZES[i], SIZES[i + 1], bias=bias), MODULES[activation]()]
    module = nn.Sequential(*parts).double()
    params = {
        name: th.randn(N_TASKS, *value.shape, generator=generator, dtype=th.double)
        for name, value in module.named_parameters()
    }
    return module, layers, params, th.randn(N_TASKS, N_SAMPLES, SIZES[0], generator=generator, dtype=th.double)


def one_by_one(module: nn.Sequential, params: Params, x: th.Tensor) -> th.Tensor:
    return th.stack([functional_call(module, {k: v[i] for k, v in params.items()}, x[i]) for i in range(N_TASKS)])


@pytest.mark.parametrize(("activations", "bias"), CASES)
def test_values_and_derivatives_up_to_second_order(activations, bias):
    module, layers, params, x = make(activations, bias)
    results = []
    for evaluate in (lambda p: stacked_mlp(p, layers, x), lambda p: one_by_one(module, p, x)):
        leaves = require_grad(params)
        out = evaluate(leaves)
        slope = flatten(grad(out.sin().sum(), leaves, create_graph=True))
        curved = flatten(grad((slope * th.linspace(-1, 1, slope.shape[1]).double()).sum(), leaves))
        results.append((out.detach(), slope.detach(), curved))
    for ours, theirs in zip(*results, strict=True):
        assert ours.shape == theirs.shape
        assert th.allclose(ours, theirs, rtol=1e-11, atol=1e-11 * float(theirs.abs().max()))


def test_a_last_hyperbolic_tangent():
    _, layers, params, x = make(("tanh", "tanh"), True)
    plain = stacked_mlp(params, layers, x)
    bounded = stacked_mlp(params, [*layers[:-1], layers[-1]._replace(activation="tanh")], x)
    assert th.allclose(bounded, plain.tanh(), rtol=1e-12, atol=1e-14)


def test_saturated_units_in_single_precision():
    """Where all units saturate, and where none does, the error stays that of the rounding of numbers about 1."""
    module, layers, params, x = make(("tanh", "tanh"), True)
    for scale in (1e-3, 1.0, 30.0):
        scaled = {name: scale * value for name, value in params.items()}
        exact = one_by_one(module, scaled, x)
        single = stacked_mlp({k: v.float() for k, v in scaled.items()}, layers, x.float())
        assert float((single - exact).abs().max()) < 2e-6 * scale * max(SIZES) + 1e-6 * float(exact.abs().max())


def test_outputs_lie_in_memory_by_component():
    _, layers, params, x = make(("tanh", "tanh"), True)
    assert stacked_mlp(params, layers, x).mT.is_contiguous()
