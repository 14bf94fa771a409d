"""Action distributions: joint probabilities, sampling from one's own generator, modes."""

import numpy as np
import pytest
import torch as th
from scipy import stats
from torch.distributions import Bernoulli, Categorical, Exponential, Independent, Normal, kl_divergence

from sb3_bomrl.policies.distributions import DiagonalGaussian, MultiCategorical, mode, sample

SIZES = (2, 3, 4)
N_DRAWS = 20_000


def logits(seed: int, *shape: int) -> th.Tensor:
    return th.randn(*shape, generator=th.Generator().manual_seed(seed), dtype=th.float64)


def joint(all_logits: th.Tensor) -> Categorical:
    """The same distribution as one categorical over all 24 combinations, the last variable fastest."""
    p, q, r = (th.softmax(part, -1) for part in all_logits.split(SIZES, dim=-1))
    return Categorical(probs=th.einsum("...i,...j,...k->...ijk", p, q, r).flatten(-3))


def test_multi_categorical_is_the_product_distribution():
    a, b = logits(0, 5, 9), logits(1, 5, 9)
    p, q = MultiCategorical(a, SIZES), MultiCategorical(b, SIZES)
    assert p.batch_shape == (5,)
    assert p.event_shape == (3,)
    for index, combination in enumerate(np.ndindex(*SIZES)):
        actions = th.tensor(combination).expand(5, 3)
        assert th.allclose(p.log_prob(actions), joint(a).log_prob(th.tensor(index)))
    assert th.allclose(p.entropy(), joint(a).entropy())
    assert th.allclose(kl_divergence(p, q), kl_divergence(joint(a), joint(b)))


@pytest.mark.parametrize("n_scales", [1, 7], ids=["one scale per task", "a scale per sample"])
def test_diagonal_gaussian_is_torchs_product_of_normals(n_scales):
    means, log_stds = [logits(i, 2, 7, 3) for i in (0, 1)], [logits(i, 2, n_scales, 3) for i in (2, 3)]
    ours = [DiagonalGaussian(m, s) for m, s in zip(means, log_stds, strict=True)]
    theirs = [Independent(Normal(m, s.exp().expand_as(m)), 1) for m, s in zip(means, log_stds, strict=True)]
    actions = logits(4, 2, 7, 3)
    assert ours[0].batch_shape == (2, 7)
    assert ours[0].event_shape == (3,)
    for got, wanted in [
        (ours[0].log_prob(actions), theirs[0].log_prob(actions)),
        (ours[0].entropy(), theirs[0].entropy()),
        (kl_divergence(*ours), kl_divergence(*theirs)),
        (kl_divergence(ours[0], theirs[1]), kl_divergence(*theirs)),
        (mode(ours[0]), mode(theirs[0])),
    ]:
        assert got.shape == wanted.shape
        assert th.allclose(got, wanted, rtol=1e-12, atol=1e-12)
    draws = [sample(d[0], th.Generator().manual_seed(0)) for d in (ours, theirs)]
    assert th.equal(draws[0], draws[1])
    assert (kl_divergence(ours[0], ours[0]) == 0).all()


def repeated(values: th.Tensor) -> th.Tensor:
    return values.expand(2, N_DRAWS // 2, *values.shape)


def test_categorical_samples_have_their_probabilities():
    weights = logits(2, 5)
    draws = sample(Categorical(logits=repeated(weights)), th.Generator().manual_seed(0))
    assert draws.shape == (2, N_DRAWS // 2)
    assert draws.dtype == th.long
    expected = N_DRAWS * th.softmax(weights, -1).numpy()
    assert stats.chisquare(np.bincount(draws.flatten(), minlength=5), expected).pvalue > 1e-3


def test_multi_categorical_samples_have_their_joint_probabilities():
    weights = logits(3, 9)
    draws = sample(MultiCategorical(repeated(weights), SIZES), th.Generator().manual_seed(0))
    assert draws.shape == (2, N_DRAWS // 2, 3)
    index = np.ravel_multi_index(tuple(draws.flatten(0, 1).T.numpy()), SIZES)
    expected = N_DRAWS * joint(weights).probs.numpy()
    assert stats.chisquare(np.bincount(index, minlength=24), expected).pvalue > 1e-3


def test_normal_samples_have_their_mean_and_scale():
    mean, std = th.tensor([1.0, -3.0]), th.tensor([0.5, 2.0])
    draws = sample(Independent(Normal(repeated(mean), repeated(std)), 1), th.Generator().manual_seed(0))
    assert draws.shape == (2, N_DRAWS // 2, 2)
    standard = ((draws - mean) / std).flatten(0, 1).numpy()
    assert all(stats.kstest(standard[:, i], "norm").pvalue > 1e-3 for i in range(2))
    assert abs(np.corrcoef(standard.T)[0, 1]) < 0.03


def test_bernoulli_samples_have_their_probabilities():
    weights = logits(4, 3)
    draws = sample(Independent(Bernoulli(logits=repeated(weights)), 1), th.Generator().manual_seed(0))
    assert draws.shape == (2, N_DRAWS // 2, 3)
    ones = draws.flatten(0, 1).sum(0).numpy()
    for count, p in zip(ones, th.sigmoid(weights).numpy(), strict=True):
        assert stats.binomtest(int(count), N_DRAWS, float(p)).pvalue > 1e-3


def examples() -> list[th.distributions.Distribution]:
    return [
        Categorical(logits=logits(0, 2, 7, 5)),
        MultiCategorical(logits(0, 2, 7, 9), SIZES),
        Independent(Normal(logits(0, 2, 7, 3), th.ones(2, 7, 3, dtype=th.float64)), 1),
        Independent(Bernoulli(logits=logits(0, 2, 7, 3)), 1),
    ]


@pytest.mark.parametrize("distribution", examples(), ids=lambda d: type(d).__name__)
def test_only_the_given_generator_is_used(distribution):
    before = th.random.get_rng_state()
    first = sample(distribution, th.Generator().manual_seed(5))
    second = sample(distribution, th.Generator().manual_seed(5))
    other = sample(distribution, th.Generator().manual_seed(6))
    assert th.equal(th.random.get_rng_state(), before)
    assert th.equal(first, second)
    assert not th.equal(first, other)
    sample(distribution)
    assert not th.equal(th.random.get_rng_state(), before)


def test_samples_carry_no_gradient():
    mean = th.zeros(1, 2, 3, requires_grad=True)
    assert not sample(Independent(Normal(mean, th.ones(1, 2, 3)), 1)).requires_grad


@pytest.mark.parametrize("distribution", examples(), ids=lambda d: type(d).__name__)
def test_no_action_is_more_probable_than_the_mode(distribution):
    best = distribution.log_prob(mode(distribution))
    for seed in range(50):
        assert (distribution.log_prob(sample(distribution, th.Generator().manual_seed(seed))) <= best + 1e-12).all()


def test_a_fair_coin_has_a_mode():
    assert mode(Independent(Bernoulli(logits=th.zeros(1, 1, 2)), 1)).isfinite().all()


def test_other_distributions_are_refused():
    with pytest.raises(TypeError, match=r"must be a \(multi-\)categorical, normal or Bernoulli one, got Exponential"):
        sample(Exponential(th.ones(2)))
