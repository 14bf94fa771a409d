"""Distances against closed forms, torch.distributions and one task at a time."""

import pytest
import torch as th
from torch.distributions import Bernoulli, Categorical, Distribution, Independent, Normal

from sb3_bomrl.core.distances import parameter_distance, policy_distance, policy_kl
from sb3_bomrl.policies.distributions import MultiCategorical

N_TASKS, N_SAMPLES = 3, 8


def draw(seed: int, *shape: int) -> th.Tensor:
    return th.randn(N_TASKS, N_SAMPLES, *shape, generator=th.Generator().manual_seed(seed), dtype=th.float64)


def weights() -> th.Tensor:
    """Some samples are padding."""
    w = draw(9).abs() * (draw(8) > -0.5)
    return w / w.sum(-1, keepdim=True)


def gaussian(seed: int) -> Distribution:
    return Independent(Normal(draw(seed, 2), (0.3 * draw(seed + 1, 2)).exp()), 1)


def gaussian_kl(p: Distribution, q: Distribution) -> th.Tensor:
    ratio = (p.stddev / q.stddev).square()
    return 0.5 * (ratio + ((p.mean - q.mean) / q.stddev).square() - 1 - ratio.log()).sum(-1)


def categorical_kl(a: th.Tensor, b: th.Tensor) -> th.Tensor:
    return (a.softmax(-1) * (a.log_softmax(-1) - b.log_softmax(-1))).sum(-1)


def cases() -> dict[str, tuple[Distribution, Distribution, th.Tensor, th.Tensor]]:
    """p, q, KL(p ‖ q) and KL(q ‖ p) per sample, written out by hand."""
    p, q = gaussian(0), gaussian(10)
    a, b = draw(2, 5), draw(3, 5)
    multi = lambda x, y: categorical_kl(x[..., :2], y[..., :2]) + categorical_kl(x[..., 2:], y[..., 2:])  # noqa: E731
    coins = lambda x, y: sum(  # noqa: E731
        categorical_kl(th.stack([x[..., i], -x[..., i]], -1) / 2, th.stack([y[..., i], -y[..., i]], -1) / 2)
        for i in range(5)
    )
    return {
        "gaussian": (p, q, gaussian_kl(p, q), gaussian_kl(q, p)),
        "categorical": (Categorical(logits=a), Categorical(logits=b), categorical_kl(a, b), categorical_kl(b, a)),
        "multi_categorical": (MultiCategorical(a, [2, 3]), MultiCategorical(b, [2, 3]), multi(a, b), multi(b, a)),
        "bernoulli": (
            Independent(Bernoulli(logits=a), 1),
            Independent(Bernoulli(logits=b), 1),
            coins(a, b),
            coins(b, a),
        ),
    }


def params(seed: int) -> dict[str, th.Tensor]:
    generator = th.Generator().manual_seed(seed)
    shapes = {"weight": (2, 4), "bias": (4,), "temperature": ()}
    return {k: th.randn(N_TASKS, *s, generator=generator, dtype=th.float64) for k, s in shapes.items()}


@pytest.mark.parametrize("family", list(cases()))
def test_both_divergences_are_the_weighted_closed_forms(family):
    meta, task, forward, backward = cases()[family]
    w = weights()
    got = policy_distance("kl_meta_task", params(0), params(1), meta, task, w)
    assert th.allclose(got, (w * forward).sum(-1), rtol=1e-12)
    got = policy_distance("kl_task_meta", params(0), params(1), meta, task, w)
    assert th.allclose(got, (w * backward).sum(-1), rtol=1e-12)
    assert policy_kl(meta, meta, w).abs().max() < 1e-15
    assert (w * (forward - backward)).sum(-1).abs().min() > 1e-3  # a swap of the arguments would be seen


def test_parameter_distance_is_the_squared_norm_of_every_task():
    phi, theta = params(0), params(1)
    distance = policy_distance("parameter", phi, theta, gaussian(0), gaussian(1), weights())
    for task in range(N_TASKS):
        difference = th.cat([(theta[k][task] - phi[k][task]).reshape(-1) for k in phi])
        assert th.allclose(distance[task], difference.norm() ** 2)
    assert th.equal(parameter_distance(phi, phi), th.zeros(N_TASKS, dtype=th.float64))


def test_the_order_of_names_does_not_matter():
    phi, theta = params(0), params(1)
    assert th.allclose(parameter_distance(phi, dict(reversed(theta.items()))), parameter_distance(phi, theta))


def test_unknown_distance():
    with pytest.raises(ValueError, match=r"distance must be one of \('kl_meta_task', .*got 'wasserstein'"):
        policy_distance("wasserstein", params(0), params(0), gaussian(0), gaussian(0), weights())


def test_a_sample_that_does_not_count_may_be_infinitely_far():
    """A policy whose probability underflows to 0 has an infinite divergence there; 0 times it must not be nan."""
    p = Categorical(logits=th.zeros(1, 2, 2))
    logits = th.tensor([[[0.0, -200.0], [0.3, -0.3]]], requires_grad=True)
    assert policy_kl(p, Categorical(logits=logits), th.tensor([[0.5, 0.5]])).item() == float("inf")
    value = policy_kl(p, Categorical(logits=logits), th.tensor([[0.0, 1.0]]))
    assert value.item() == pytest.approx(categorical_kl(th.zeros(2), th.tensor([0.3, -0.3])).item(), rel=1e-6)
    (gradient,) = th.autograd.grad(value.sum(), logits)
    assert gradient.isfinite().all()
    assert gradient[0, 1].abs().min() > 0
