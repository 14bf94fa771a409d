"""Surrogates: values, derivatives, saturation, and PPO's own formula."""

import pytest
import torch as th

from sb3_bomrl.core.surrogates import (
    POLICY_GRADIENT_SURROGATES,
    between_linear_and_log,
    derivatives,
    get_surrogate,
    likelihood_ratio,
)
from sb3_bomrl.core.surrogates import SURROGATES as OFFERED

SURROGATES = sorted({*OFFERED, *POLICY_GRADIENT_SURROGATES})

ADVANTAGES = th.tensor([2.0, -3.0, 0.5, -0.1], dtype=th.float64)


@pytest.mark.parametrize("name", SURROGATES)
def test_value_and_slope_are_one_at_ratio_one(name):
    ratio = th.ones(4, dtype=th.float64)
    h = get_surrogate(name)
    assert th.equal(h(ratio, ADVANTAGES), ratio)
    assert th.allclose(derivatives(h, ratio, ADVANTAGES)[0], ratio, rtol=1e-14)


def test_all_give_the_same_policy_gradient_at_the_meta_policy():
    logits = th.randn(6, 4, generator=th.Generator().manual_seed(0), dtype=th.float64)
    actions, advantages = th.tensor([0, 1, 2, 3, 1, 0]), th.linspace(-1, 1.5, 6, dtype=th.float64)

    def gradient(name: str) -> th.Tensor:
        theta = logits.clone().requires_grad_()
        log_ratio = (theta.log_softmax(-1) - logits.log_softmax(-1)).gather(-1, actions[:, None]).squeeze(-1)
        objective = (get_surrogate(name)(log_ratio.exp(), advantages) * advantages).mean()
        return th.autograd.grad(objective, theta)[0]

    one_hot = th.nn.functional.one_hot(actions, 4)
    reinforce = (one_hot - logits.softmax(-1)) * advantages[:, None] / 6
    for name in SURROGATES:
        assert th.allclose(gradient(name), reinforce, rtol=1e-12)


@pytest.mark.parametrize("clip_range", [0.1, 0.2, 0.5])
def test_clip_is_ppos_minimum(clip_range):
    ratio = th.linspace(0.0, 3.0, 301, dtype=th.float64)
    for advantage in (2.0, -3.0, 0.0):
        a = th.full_like(ratio, advantage)
        h = get_surrogate("clip", clip_range)(ratio, a)
        expected = th.minimum(ratio * a, ratio.clamp(1 - clip_range, 1 + clip_range) * a)
        assert th.allclose(h * a, expected, rtol=1e-14)


def test_sigmoid_saturates_at_zero_and_two():
    ratio = th.tensor([0.0, 1.5, 50.0, 1e6], dtype=th.float64)
    h = get_surrogate("sigmoid")(ratio, th.ones_like(ratio))
    expected = [2 / (1 + 2.718281828459045**2), 2 / (1 + 2.718281828459045**-1), 2.0, 2.0]
    assert th.allclose(h, th.tensor(expected, dtype=th.float64), rtol=1e-14)
    assert derivatives(get_surrogate("sigmoid"), ratio, th.ones_like(ratio))[0][2:].abs().max() < 1e-30


@pytest.mark.parametrize("name", SURROGATES)
def test_derivatives_are_finite_differences(name):
    h, step = get_surrogate(name), 1e-4
    ratio = th.tensor([[0.31, 0.77, 1.13], [1.31, 2.2, 0.95]], dtype=th.float64)
    for sign in (1.0, -1.0):
        a = th.full_like(ratio, sign)
        up, middle, down = (h(ratio + k * step, a) for k in (1, 0, -1))
        first, second = derivatives(h, ratio, a)
        assert th.allclose(first, (up - down) / (2 * step), atol=1e-7)
        assert th.allclose(second, (up - 2 * middle + down) / step**2, atol=1e-6)
        assert not first.requires_grad
        assert not second.requires_grad


def test_derivatives_work_where_gradients_are_switched_off():
    with th.no_grad():
        first, second = derivatives(get_surrogate("sigmoid"), th.tensor([1.0]), th.tensor([1.0]))
    assert th.allclose(first, th.ones(1))
    assert th.allclose(second, th.zeros(1))


def test_unknown_surrogate():
    with pytest.raises(
        ValueError, match=r"surrogate must be one of \('linear', 'sigmoid', 'clip', 'log'\), got 'relu'"
    ):
        get_surrogate("relu")


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_between_linear_and_log_the_curvature_is_the_share(share):
    ratio = th.tensor([0.4, 1.0, 2.0], dtype=th.float64)
    h = between_linear_and_log(share)
    assert th.allclose(h(ratio, ratio), (1 - share) * ratio + share * (1 + ratio.log()), rtol=1e-14)
    first, second = derivatives(h, ratio, ratio)
    assert (float(first[1]), float(second[1])) == pytest.approx((1.0, -share))


def test_the_likelihood_ratio_is_the_quotient_and_stays_finite_far_away():
    near = th.tensor([-25.0, -1.0, 0.0, 0.3, 25.0], dtype=th.float64)
    assert th.allclose(
        likelihood_ratio(near - 2.0, th.full_like(near, -2.0)), (near - 2.0).exp() / th.tensor(-2.0).exp()
    )
    for name in SURROGATES:
        log_ratio = th.tensor([-500.0, -95.0, 95.0, 500.0], requires_grad=True)
        h = get_surrogate(name)(likelihood_ratio(log_ratio, th.zeros(4)), ADVANTAGES.float())
        assert h.square().isfinite().all()
        assert th.autograd.grad(h.sum(), log_ratio)[0].isfinite().all()
    assert likelihood_ratio(th.tensor(th.nan), th.tensor(0.0)).isnan()
