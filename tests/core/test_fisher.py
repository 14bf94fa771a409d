"""Fisher-vector products against the dense Hessian of the divergence, and against the mean outer product of scores."""

import pytest
import torch as th
from torch.distributions import Categorical, kl_divergence

from sb3_bomrl.core.fisher import fisher_vector_product
from sb3_bomrl.core.params import flatten, grad, require_grad
from sb3_bomrl.core.stacked_mlp import Layer, stacked_mlp
from sb3_bomrl.policies.distributions import DiagonalGaussian

N_TASKS, N_SAMPLES = 2, 9
LAYERS = [Layer("w1", "b1", "tanh"), Layer("w2", "b2", "identity")]
SHAPES = {"w1": (3, 4), "b1": (3,), "w2": (2, 3), "b2": (2,), "log_std": (2,)}


def draw(seed, *shape):
    return th.randn(*shape, generator=th.Generator().manual_seed(seed), dtype=th.double)


def setting(kind):
    x = draw(0, N_TASKS, N_SAMPLES, 4)
    params = {name: draw(i + 1, N_TASKS, *shape) for i, (name, shape) in enumerate(SHAPES.items())}
    weights = draw(9, N_TASKS, N_SAMPLES).softmax(-1)
    if kind == "categorical":
        params.pop("log_std")

    def network(p):
        outputs = stacked_mlp(p, LAYERS, x)
        return (outputs,) if kind == "categorical" else (outputs, p["log_std"])

    def distribution(*outputs):
        return (
            Categorical(logits=outputs[0])
            if kind == "categorical"
            else DiagonalGaussian(outputs[0], outputs[1][:, None])
        )

    with th.no_grad():
        fixed = distribution(*network(params))
    return (
        network,
        distribution,
        params,
        lambda *out: (weights * kl_divergence(fixed, distribution(*out))).sum(),
        weights,
    )


@pytest.mark.parametrize("kind", ["gaussian", "categorical"])
def test_product_is_the_hessian_of_the_divergence(kind):
    network, _, params, divergence, _ = setting(kind)
    product = fisher_vector_product(network, divergence, params)
    theta = require_grad(params)
    slope = flatten(grad(divergence(*network(theta)), theta, create_graph=True))
    assert float(slope.detach().abs().max()) < 1e-12
    for seed in (20, 21):
        v = draw(seed, *slope.shape)
        expected = flatten(grad((slope * v).sum(), theta, retain_graph=True))
        got = product(v)
        assert not got.requires_grad
        assert th.allclose(got, expected, rtol=1e-10, atol=1e-12)
        assert float((got - product(v)).abs().max()) == 0.0


def test_product_is_the_mean_square_of_the_score():
    """F = Σ_s w_s Σ_a π(a∣s) ∇log π ∇log πᵀ, the definition."""
    network, distribution, params, divergence, weights = setting("categorical")
    product = fisher_vector_product(network, divergence, params)
    theta = require_grad(params)
    log_probs = distribution(*network(theta)).logits
    v = draw(20, *flatten(params).shape)
    expected = th.zeros_like(v)
    for s in range(N_SAMPLES):
        for a in range(2):
            score = flatten(grad(log_probs[:, s, a].sum(), theta, retain_graph=True))
            share = weights[:, s] * log_probs[:, s, a].detach().exp()
            expected += (share * (score * v).sum(1))[:, None] * score
    assert th.allclose(product(v), expected, rtol=1e-10, atol=1e-12)
