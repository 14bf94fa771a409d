"""The trust region on a Gaussian family, whose Fisher matrix and divergence are known in closed form."""

import math
from collections.abc import Callable

import pytest
import torch as th
from torch.distributions import Independent, Normal, kl_divergence

from sb3_bomrl.core.linear_solve import MatVec
from sb3_bomrl.core.params import flatten, grad, require_grad
from sb3_bomrl.core.trust_region import BACKTRACK_FACTOR, MAX_BACKTRACKS, OuterInfo, TrustRegion, trust_region_step
from sb3_bomrl.types import Params

EXACT = TrustRegion(max_kl=0.01, cg_max_steps=50, cg_damping=0.0)


def start() -> Params:
    return {
        "mean": th.tensor([0.3, -1.0, 2.0], dtype=th.float64),
        "log_std": th.tensor([-1.0, 0.0, 0.7], dtype=th.float64),
    }


def gradient() -> Params:
    return {
        "mean": th.tensor([1.0, -2.0, 0.5], dtype=th.float64),
        "log_std": th.tensor([0.1, 0.4, -0.2], dtype=th.float64),
    }


def policy(params: Params) -> Independent:
    return Independent(Normal(params["mean"], params["log_std"].exp()), 1)


def kl(params: Params) -> th.Tensor:
    return kl_divergence(policy(start()), policy(params))


def hessian_of(divergence: Callable[[Params], th.Tensor]) -> MatVec:
    """Products with the Hessian of a divergence at the start, by differentiating it twice."""
    phi = require_grad(start())
    slope = flatten({name: v[None] for name, v in grad(divergence(phi), phi, create_graph=True).items()})
    return lambda v: flatten({k: g[None] for k, g in grad((slope * v).sum(), phi, retain_graph=True).items()})


def take_step(
    ascent: Params,
    settings: TrustRegion = EXACT,
    improvement: Callable[[Params], float] | None = None,
    divergence: Callable[[Params], th.Tensor] = kl,
) -> tuple[Params, OuterInfo]:
    return trust_region_step(start(), ascent, divergence, settings, improvement, hessian_of(kl))


def test_direction_is_the_natural_gradient_and_the_divergence_is_the_radius():
    new, info = take_step(gradient())
    fisher = {"mean": (-2 * start()["log_std"]).exp(), "log_std": th.full((3,), 2.0, dtype=th.float64)}
    natural = {name: gradient()[name] / fisher[name] for name in fisher}
    length = math.sqrt(2 * 0.01 / sum((natural[k] * gradient()[k]).sum().item() for k in natural))
    shrink = BACKTRACK_FACTOR**info.n_backtracks
    assert info.n_backtracks <= 1
    for name, value in start().items():
        assert th.allclose(new[name] - value, shrink * length * natural[name], rtol=1e-6)
        assert not new[name].requires_grad
    assert info.accepted
    assert math.isnan(info.improvement)
    assert info.kl == pytest.approx(kl(new).item())
    assert 0.75 * 0.01 < info.kl <= 0.01
    assert info.cg_residual < 1e-6


def test_damping_shortens_the_step_along_directions_of_little_curvature():
    damped, info = take_step(gradient(), EXACT._replace(cg_damping=10.0))
    assert 0 < info.kl <= 0.01
    fisher_mean = (-2 * start()["log_std"]).exp()
    step = damped["mean"] - start()["mean"]
    expected = gradient()["mean"] / (fisher_mean + 10.0)
    assert th.allclose(step / step[0], expected / expected[0], rtol=1e-6)


def test_the_step_is_shortened_until_the_surrogate_improves():
    full, first = take_step(gradient())
    seen: list[Params] = []

    def refuse_three_times(candidate: Params) -> float:
        seen.append(candidate)
        return 0.25 if len(seen) == 4 else (float("nan") if len(seen) == 2 else -1.0)

    new, info = take_step(gradient(), improvement=refuse_three_times)
    assert info.accepted
    assert info.improvement == 0.25
    assert info.n_backtracks == first.n_backtracks + 3
    assert info.kl == pytest.approx(kl(new).item())
    for name, value in start().items():
        assert th.allclose(new[name] - value, 0.9**3 * (full[name] - value), rtol=1e-9)


def test_nothing_changes_when_no_step_is_accepted():
    for improvement in (lambda _: -1.0, lambda _: 0.0, lambda _: float("nan")):
        new, info = take_step(gradient(), improvement=improvement)
        assert all(th.equal(new[name], value) for name, value in start().items())
        assert not info.accepted
        assert info.kl == 0.0
        assert info.n_backtracks == MAX_BACKTRACKS


def test_the_divergence_is_never_above_the_radius():
    """A divergence that grows faster than its quadratic part."""
    grows = lambda params: kl(params) + 1e4 * kl(params) ** 2  # noqa: E731
    new, info = take_step(gradient(), divergence=grows)
    assert info.accepted
    assert info.n_backtracks >= 2
    assert 0 < grows(new).item() <= 0.01


def test_a_divergence_that_is_not_a_number_is_not_accepted():
    new, info = take_step(gradient(), divergence=lambda params: kl(params) * float("nan"))
    assert not info.accepted
    assert th.equal(new["mean"], start()["mean"])


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_useless_gradients_change_nothing(value):
    bad = {name: th.full_like(g, value) for name, g in gradient().items()}
    new, info = take_step(bad)
    assert not info.accepted
    assert all(th.equal(new[name], old) for name, old in start().items())


def test_the_scale_of_the_gradient_does_not_matter_and_the_arguments_are_unchanged():
    params, g = start(), gradient()
    new, _ = trust_region_step(params, g, kl, EXACT, None, hessian_of(kl))
    other, _ = take_step({k: 1e4 * v for k, v in g.items()})
    for name in new:
        assert th.allclose(new[name], other[name], rtol=1e-8)
        assert th.equal(params[name], start()[name])
        assert th.equal(g[name], gradient()[name])
