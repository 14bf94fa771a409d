"""Closed forms of the lower level against high-precision arithmetic, random policies and finite differences."""

from decimal import Decimal, localcontext

import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_bomrl.core.minimizers import kl_meta_task_minimizer, kl_task_meta_minimizer

REG_COEFS = [1e-4, 1e-2, 0.3, 1.0, 10.0, 1e4]


def random_states(n_states: int, n_actions: int, seed: int, spread: float) -> tuple[th.Tensor, th.Tensor]:
    """Policies down to about exp(-4 spread), at least 1e-12, and action values with ties in every fourth state."""
    generator = th.Generator().manual_seed(seed)
    logits = spread * th.randn(n_states, n_actions, generator=generator, dtype=th.float64)
    probs = th.softmax(logits, dim=-1).clamp_min(1e-12)
    q_values = 3 * th.randn(n_states, n_actions, generator=generator, dtype=th.float64)
    q_values[::4, 1] = q_values[::4, 0]
    return probs / probs.sum(dim=-1, keepdim=True), q_values


def kl(p: th.Tensor, q: th.Tensor) -> th.Tensor:
    return th.special.xlogy(p, p).sum(-1) - th.special.xlogy(p, q).sum(-1)


def competitors(policy: th.Tensor, seed: int) -> th.Tensor:
    """Random policies and small perturbations of the given ones, (20, n_states, n_actions)."""
    generator = th.Generator().manual_seed(seed)
    noise = th.randn(10, *policy.shape, generator=generator, dtype=th.float64)
    scale = th.logspace(-5, 0, 10, dtype=th.float64).view(-1, 1, 1)
    perturbed = th.softmax(policy.clamp_min(1e-300).log() + scale * noise, dim=-1)
    return th.cat([perturbed, th.softmax(3 * noise, dim=-1)])


@pytest.mark.parametrize("reg_coef", REG_COEFS)
@pytest.mark.parametrize("spread", [0.5, 4.0, 20.0])
def test_alg1_kkt_residual_and_no_better_policy(reg_coef, spread):
    probs, q_values = random_states(500, 4, seed=1, spread=spread)
    policy = kl_meta_task_minimizer(probs, q_values, reg_coef)
    assert (policy > 0).all()
    assert (policy.sum(-1) - 1).abs().max() <= 1e-14
    # Stationarity: probs / policy + Q / lambda is one number mu per state.
    multipliers = probs / policy + q_values / reg_coef
    scale = 1 + q_values.abs().amax(-1) / reg_coef
    assert ((multipliers.amax(-1) - multipliers.amin(-1)) / scale).max() <= 1e-10
    mu = multipliers.mean(-1, keepdim=True) / scale.unsqueeze(-1)
    assert (mu >= ((q_values / reg_coef + probs).amax(-1, keepdim=True)) / scale.unsqueeze(-1) - 1e-12).all()
    assert (mu <= (q_values.amax(-1, keepdim=True) / reg_coef + 1) / scale.unsqueeze(-1) + 1e-12).all()

    def objective(p: th.Tensor) -> th.Tensor:
        return reg_coef * kl(probs, p) - (q_values * p).sum(-1)

    best = objective(policy)
    slack = 1e-12 * (1 + q_values.abs().amax(-1) + reg_coef)
    assert (objective(competitors(policy, seed=2)) >= best - slack).all()


@pytest.mark.parametrize("reg_coef", REG_COEFS)
@pytest.mark.parametrize("spread", [0.5, 4.0, 20.0])
def test_alg2_kkt_residual_and_no_better_policy(reg_coef, spread):
    probs, q_values = random_states(500, 4, seed=3, spread=spread)
    log_policy = kl_task_meta_minimizer(probs.log(), q_values, reg_coef)
    policy = log_policy.exp()
    assert (policy.sum(-1) - 1).abs().max() <= 1e-14
    multipliers = log_policy - probs.log() - q_values / reg_coef
    scale = 1 + q_values.abs().amax(-1) / reg_coef
    assert ((multipliers.amax(-1) - multipliers.amin(-1)) / scale).max() <= 1e-10

    def objective(p: th.Tensor) -> th.Tensor:
        return reg_coef * kl(p, probs) - (q_values * p).sum(-1)

    slack = 1e-12 * (1 + q_values.abs().amax(-1) + 30 * reg_coef)
    assert (objective(competitors(policy, seed=4)) >= objective(policy) - slack).all()


def alg1_by_bisection(probs: list[float], q_values: list[float], reg_coef: float) -> list[Decimal]:
    """The root mu in 60 digits by bisection on the interval of the specification."""
    with localcontext() as context:
        context.prec = 60
        weights, scores = [Decimal(p) for p in probs], [Decimal(q) / Decimal(reg_coef) for q in q_values]
        total = sum(weights)
        low = max(w + s for w, s in zip(weights, scores, strict=True))
        high = max(scores) + total
        for _ in range(220):
            mu = (low + high) / 2
            excess = sum(w / (mu - s) for w, s in zip(weights, scores, strict=True)) - 1
            low, high = (mu, high) if excess > 0 else (low, mu)
        return [w / (high - s) for w, s in zip(weights, scores, strict=True)]


@settings(max_examples=60, deadline=None)
@given(
    logs=st.lists(st.floats(-27.6, 0.0), min_size=2, max_size=5),
    data=st.data(),
    reg_exponent=st.floats(-4.0, 4.0),
)
def test_alg1_against_sixty_digits(logs, data, reg_exponent):
    """Every probability, also of size 1e-12 and below, has at least nine correct digits."""
    values = data.draw(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.3, 1.0]), min_size=len(logs), max_size=len(logs)))
    probs = th.softmax(th.tensor(logs, dtype=th.float64), dim=-1)
    policy = kl_meta_task_minimizer(probs, th.tensor(values, dtype=th.float64), 10.0**reg_exponent)
    exact = alg1_by_bisection(probs.tolist(), values, 10.0**reg_exponent)
    for value, reference in zip(policy.tolist(), exact, strict=True):
        assert abs(Decimal(value) / reference - 1) < Decimal("1e-9")


@pytest.mark.parametrize("reg_coef", [0.01, 0.3, 5.0, 100.0])
def test_gradients_of_first_and_second_order(reg_coef):
    probs, q_values = random_states(3, 4, seed=5, spread=1.0)
    logits = probs.log().requires_grad_(True)
    q_values = (q_values * min(1.0, 3 * reg_coef)).requires_grad_(True)

    def alg1(z: th.Tensor, q: th.Tensor) -> th.Tensor:
        return kl_meta_task_minimizer(th.softmax(z, dim=-1), q, reg_coef)

    def alg2(z: th.Tensor, q: th.Tensor) -> th.Tensor:
        return kl_task_meta_minimizer(z, q, reg_coef).exp()

    for minimizer in (alg1, alg2):
        assert th.autograd.gradcheck(minimizer, (logits, q_values), atol=1e-7, rtol=1e-5)
        assert th.autograd.gradgradcheck(minimizer, (logits, q_values), atol=1e-6, rtol=1e-4)


def test_derivatives_are_proposition_1():
    """dp = [M^-1 - M^-1 1 1' M^-1 / (1' M^-1 1)] (dQ - lambda d2_{p pi} dpi) with M = lambda d2_{pp}."""
    probs, q_values = random_states(1, 4, seed=9, spread=1.0)
    probs, q_values, reg_coef = probs[0], q_values[0], 0.7
    for minimize, second, mixed in (
        (lambda p, q: kl_meta_task_minimizer(p, q, reg_coef), lambda p: probs / p**2, lambda p: -1 / p),
        (lambda p, q: kl_task_meta_minimizer(p.log(), q, reg_coef).exp(), lambda p: 1 / p, lambda p: -1 / probs),
    ):
        policy = minimize(probs, q_values)
        inverse = 1 / (reg_coef * second(policy))
        response = th.diag(inverse) - th.outer(inverse, inverse) / inverse.sum()
        by_probs, by_q = th.autograd.functional.jacobian(minimize, (probs, q_values))
        th.testing.assert_close(by_q, response, rtol=0, atol=1e-12)
        th.testing.assert_close(by_probs, -reg_coef * response * mixed(policy), rtol=0, atol=1e-12)


def test_gradient_off_the_simplex():
    """The plain partial derivative in ``probs``, without a softmax that would project it."""
    probs, q_values = random_states(3, 4, seed=6, spread=1.0)
    assert th.autograd.gradcheck(
        lambda p, q: kl_meta_task_minimizer(p, q, 0.5), (probs.requires_grad_(True), q_values.requires_grad_(True))
    )


def test_limits():
    """A huge lambda changes nothing, a tiny one takes the greedy action, equal values change nothing."""
    probs, q_values = random_states(50, 3, seed=7, spread=1.0)
    q_values[::4, 1] += 1.0  # no ties here
    greedy = th.nn.functional.one_hot(q_values.argmax(-1), 3).double()
    for minimize in (
        kl_meta_task_minimizer,
        lambda p, q, reg_coef: kl_task_meta_minimizer(p.log(), q, reg_coef).exp(),
    ):
        th.testing.assert_close(minimize(probs, q_values, 1e9), probs, rtol=0, atol=1e-7)
        th.testing.assert_close(minimize(probs, q_values, 1e-7), greedy, rtol=0, atol=1e-4)
        th.testing.assert_close(minimize(probs, th.full_like(q_values, 7.0), 0.1), probs, rtol=0, atol=1e-14)


def test_leading_axes_are_batch_axes():
    probs, q_values = random_states(6, 3, seed=8, spread=1.0)
    two_tasks = th.stack([q_values, q_values.flip(0)])
    batched = kl_meta_task_minimizer(probs, two_tasks, 0.2)
    assert batched.shape == (2, 6, 3)
    alone = kl_meta_task_minimizer(probs[4], q_values[1], 0.2)
    th.testing.assert_close(batched[1, 4], alone, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("probs", "q_values", "reg_coef", "message"),
    [
        ([0.5, 0.5], [1.0, 0.0], 0.0, "reg_coef must be a finite number above 0, got 0.0"),
        ([0.5, 0.5], [1.0, 0.0], float("nan"), "reg_coef must be a finite number above 0, got nan"),
        ([0.5, 0.5], [1.0, 0.0, 0.0], 1.0, "last axis"),
        ([1.0, 0.0], [1.0, 0.0], 1.0, "probs must be positive"),
        ([0.5, 0.6], [1.0, 0.0], 1.0, "probs must sum to 1"),
    ],
)
def test_bad_arguments_are_named(probs, q_values, reg_coef, message):
    with pytest.raises(ValueError, match=message):
        kl_meta_task_minimizer(th.tensor(probs).double(), th.tensor(q_values).double(), reg_coef)


def test_shapes_that_do_not_broadcast_are_named():
    with pytest.raises(ValueError, match="must broadcast"):
        kl_task_meta_minimizer(th.zeros(2, 3), th.zeros(4, 3), 1.0)
