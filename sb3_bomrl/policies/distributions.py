"""Action distributions beside those of torch: several categoricals, modes, sampling from a given generator."""

import math
from collections.abc import Sequence

import torch as th
from torch.distributions import Bernoulli, Categorical, Distribution, Independent, Normal, kl_divergence, register_kl


class MultiCategorical(Distribution):
    """
    Independent categorical variables of different sizes, for ``spaces.MultiDiscrete``.

    :param logits: (..., sum(sizes)), joined along the last axis
    :param sizes: number of categories of each variable
    """

    arg_constraints = {}

    def __init__(self, logits: th.Tensor, sizes: Sequence[int]) -> None:
        self.components = [Categorical(logits=part, validate_args=False) for part in logits.split(list(sizes), dim=-1)]
        super().__init__(logits.shape[:-1], th.Size([len(self.components)]), validate_args=False)

    def log_prob(self, value: th.Tensor) -> th.Tensor:
        """
        Compute the joint log-probability.

        :param value: (..., n_variables)
        :return: (...)
        """
        parts = [c.log_prob(value[..., i]) for i, c in enumerate(self.components)]
        return th.stack(parts).sum(0)

    def entropy(self) -> th.Tensor:
        """
        Compute the joint entropy.

        :return: (...) in nats
        """
        return th.stack([c.entropy() for c in self.components]).sum(0)


@register_kl(MultiCategorical, MultiCategorical)  # type: ignore[untyped-decorator]
def _kl_multi_categorical(p: MultiCategorical, q: MultiCategorical) -> th.Tensor:
    return th.stack([kl_divergence(a, b) for a, b in zip(p.components, q.components, strict=True)]).sum(0)


class DiagonalGaussian(Independent):
    r"""
    A normal distribution with a diagonal covariance, in as few passes over the samples as its closed forms allow.

    :param mean: (n_tasks, n_samples, action_dim)
    :param log_std: log σ, of a shape that broadcasts to the mean's; where all samples of a task share it,
        (n_tasks, 1, action_dim), what depends on it alone is computed once per task
    """

    def __init__(self, mean: th.Tensor, log_std: th.Tensor) -> None:
        self.log_std = log_std
        super().__init__(Normal(mean, log_std.exp(), validate_args=False), 1, validate_args=False)

    def log_prob(self, value: th.Tensor) -> th.Tensor:
        """
        Compute log N(a; μ, σ²), summed over the components of an action.

        :param value: (n_tasks, n_samples, action_dim)
        :return: (n_tasks, n_samples)
        """
        z = (value - self.base_dist.loc) * (-self.log_std).exp()
        constant = 0.5 * math.log(2.0 * math.pi) * self.event_shape[0]
        return -0.5 * z.square().sum(-1) - (self.log_std.sum(-1) + constant)


@register_kl(DiagonalGaussian, DiagonalGaussian)  # type: ignore[untyped-decorator]
def _kl_diagonal_gaussian(p: DiagonalGaussian, q: DiagonalGaussian) -> th.Tensor:
    z = (p.base_dist.loc - q.base_dist.loc) * (-q.log_std).exp()
    log_ratio = p.log_std - q.log_std
    return 0.5 * z.square().sum(-1) + (0.5 * (2.0 * log_ratio).exp() - log_ratio - 0.5).sum(-1)


def _draw_categorical(distribution: Categorical, generator: th.Generator | None) -> th.Tensor:
    probs = distribution.probs
    draws = th.multinomial(probs.reshape(-1, probs.shape[-1]), 1, replacement=True, generator=generator)
    return draws.reshape(probs.shape[:-1])


@th.no_grad()
def sample(distribution: Distribution, generator: th.Generator | None = None) -> th.Tensor:
    r"""
    Draw one action per batch element from a given generator.

    :param distribution: a diagonal Gaussian, categorical, multi-categorical or Bernoulli action distribution
    :param generator: source of randomness; torch's global one if not given
    :return: (..., \*action_shape)
    :raises TypeError: for any other distribution
    """
    if isinstance(distribution, Categorical):
        return _draw_categorical(distribution, generator)
    if isinstance(distribution, MultiCategorical):
        return th.stack([_draw_categorical(c, generator) for c in distribution.components], dim=-1)
    base = distribution.base_dist if isinstance(distribution, Independent) else distribution
    if isinstance(base, Normal):
        return th.normal(base.mean.contiguous(), base.stddev, generator=generator)
    if isinstance(base, Bernoulli):
        return th.bernoulli(base.probs, generator=generator)
    raise TypeError(f"distribution must be a (multi-)categorical, normal or Bernoulli one, got {distribution!r}")


@th.no_grad()
def mode(distribution: Distribution) -> th.Tensor:
    r"""
    Return the most probable action, as SB3's ``deterministic=True`` takes it.

    :param distribution: see :func:`sample`
    :return: (..., \*action_shape)
    """
    if isinstance(distribution, MultiCategorical):
        return th.stack([c.probs.argmax(-1) for c in distribution.components], dim=-1)
    base = distribution.base_dist if isinstance(distribution, Independent) else distribution
    if isinstance(base, Bernoulli):
        return base.probs.round()
    return distribution.mode
