"""
Meta-policies: SB3's actor-critic policies called as functions of (stacked) parameters, and a softmax table.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import (
    BernoulliDistribution,
    CategoricalDistribution,
    DiagGaussianDistribution,
    MultiCategoricalDistribution,
)
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor
from stable_baselines3.common.type_aliases import Schedule
from torch import nn
from torch.distributions import Bernoulli, Categorical, Distribution, Independent
from torch.func import functional_call, vmap

from sb3_bomrl.core.action_distributions import DiagonalGaussian, MultiCategorical
from sb3_bomrl.core.stacked_mlp import stacked_mlp
from sb3_bomrl.networks import (
    ActorModule,
    check_batch_norms,
    counting_units,
    find_layers,
    update_batch_norms,
    zero_observation,
)
from sb3_bomrl.types import Observations, Params


class NormalizedFlattenExtractor(BaseFeaturesExtractor):
    """
    Flatten the observation and standardise it by running statistics that are part of the policy.

    The statistics are buffers: they are saved, loaded and copied with the policy, so an adapted model needs no
    ``VecNormalize`` beside it. Meta-algorithms update them once per meta-iteration, between iterations, so that all
    data of one iteration are seen through the same statistics.

    :param observation_space: a ``Box``
    :param clip: standardised observations are clipped to [−clip, clip]
    :param epsilon: added to the variance
    :raises ValueError: if the observation space is not a ``Box``
    """

    mean: th.Tensor
    var: th.Tensor
    count: th.Tensor

    def __init__(self, observation_space: spaces.Space, clip: float = 5.0, epsilon: float = 1e-8) -> None:
        if not isinstance(observation_space, spaces.Box):
            raise ValueError(f"observation_space must be a Box, got {observation_space}")
        dim = int(np.prod(observation_space.shape))
        super().__init__(observation_space, dim)
        self.clip, self.epsilon = clip, epsilon
        self.register_buffer("mean", th.zeros(dim))
        self.register_buffer("var", th.ones(dim))
        self.register_buffer("count", th.tensor(0.0, dtype=th.double))

    def forward(self, observations: th.Tensor) -> th.Tensor:
        """
        Standardise.

        :param observations: (n_samples, \\*obs_shape)
        :return: (n_samples, obs_dim)
        """
        scaled = (observations.flatten(1) - self.mean) / (self.var + self.epsilon).sqrt()
        return scaled.clamp(-self.clip, self.clip)

    @th.no_grad()
    def update(self, observations: th.Tensor) -> None:
        """
        Fold observations into the running mean and variance (Chan, Golub and LeVeque, 1979).

        :param observations: (n_samples, \\*obs_shape)
        """
        x = observations.flatten(1).to(self.mean.device).double()
        n_new = float(len(x))
        if n_new == 0:
            return
        total = self.count + n_new
        delta = x.mean(0) - self.mean
        second = (
            self.var.double() * self.count + x.var(0, unbiased=False) * n_new + delta**2 * self.count * n_new / total
        )
        self.mean.add_((delta * n_new / total).to(self.mean.dtype))
        self.var.copy_((second / total).to(self.var.dtype))
        self.count.copy_(total)


class TabularPolicy(ActorCriticPolicy):
    """
    A softmax table: π(a∣s) ∝ exp(table[s, a]), uniform at the start, with a table of values beside it.

    :param observation_space: ``Discrete``
    :param action_space: ``Discrete``
    :param lr_schedule: learning rate schedule
    :param kwargs: further arguments of :class:`~stable_baselines3.common.policies.ActorCriticPolicy`
    :raises ValueError: if either space is not ``Discrete``
    """

    def __init__(
        self, observation_space: spaces.Space, action_space: spaces.Space, lr_schedule: Schedule, **kwargs: Any
    ) -> None:
        for name, space in (("observation_space", observation_space), ("action_space", action_space)):
            if not isinstance(space, spaces.Discrete):
                raise ValueError(f"TabularPolicy needs a Discrete {name}, got {space}: use 'MlpPolicy'")
        assert isinstance(action_space, spaces.Discrete)
        self.n_actions = int(action_space.n)
        kwargs.setdefault("net_arch", [])
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        assert isinstance(self.action_space, spaces.Discrete)
        self.action_net = _zero_table(self.mlp_extractor.latent_dim_pi, int(self.action_space.n))
        self.value_net = _zero_table(self.mlp_extractor.latent_dim_vf, 1)
        self.optimizer = self.optimizer_class(  # type: ignore[call-arg]
            self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs
        )


def _zero_table(n_rows: int, n_columns: int) -> nn.Linear:
    table = nn.Linear(n_rows, n_columns, bias=False)
    nn.init.zeros_(table.weight)
    return table


class Actor:
    """
    The actor of an SB3 policy as a function of stacked parameters.

    The parameters are those that the action distribution depends on; the rest of the policy (critic, buffers) is read
    from the policy and never changed. ``n_units`` is how many numbers the network's parts put out for one observation.

    :param policy: policy with a Gaussian, categorical, multi-categorical or Bernoulli action distribution
    :raises ValueError: for any other action distribution, such as gSDE's, or one that depends on other observations
    """

    def __init__(self, policy: ActorCriticPolicy) -> None:
        supported = (
            DiagGaussianDistribution,
            CategoricalDistribution,
            MultiCategoricalDistribution,
            BernoulliDistribution,
        )
        if not isinstance(policy.action_dist, supported):
            raise ValueError(
                f"policy must have one of the action distributions {[c.__name__ for c in supported]}, "
                f"got {type(policy.action_dist).__name__}"
            )
        check_batch_norms(policy)
        self.policy = policy
        self.module = ActorModule(policy)
        self.names = self._find_names()
        named, inner = dict(policy.named_parameters()), {id(p): n for n, p in self.module.named_parameters()}
        self._inner_names = {name: inner[id(named[name])] for name in self.names}
        self._layers = None
        if type(self.module.features_extractor) in _WITHOUT_PARAMETERS:
            names = {id(parameter): name for name, parameter in named.items()}
            self._layers = find_layers(self.module, names)

    def _find_names(self) -> tuple[str, ...]:
        """Names of the policy's parameters that the action distribution depends on, found by differentiating it."""
        zeros = zero_observation(self.policy.observation_space, self.policy.device)
        named = dict(self.policy.named_parameters())
        was_training = self.policy.training
        self.policy.set_training_mode(False)
        with th.enable_grad(), counting_units(self.module) as n_units:
            total = th.stack([out.sum() for out in self.module(self.preprocess_flat(zeros))]).sum()
        self.n_units = n_units.total()
        self.policy.set_training_mode(was_training)
        gradients = th.autograd.grad(total, list(named.values()), allow_unused=True)
        return tuple(name for name, g in zip(named, gradients, strict=True) if g is not None)

    def params(self) -> Params:
        r"""
        The meta-parameters φ.

        :return: copies, each of shape \*shape
        """
        named = dict(self.policy.named_parameters())
        return {name: named[name].detach().clone() for name in self.names}

    @th.no_grad()
    def load_params(self, params: Params) -> None:
        r"""
        Write parameters into the policy.

        :param params: as from :meth:`params`, each of shape \*shape
        """
        named = dict(self.policy.named_parameters())
        for name in self.names:
            named[name].copy_(params[name])

    def preprocess_flat(self, observations: Observations) -> Observations:
        """
        :meth:`preprocess` without the axis of tasks.

        :param observations: (n_samples, \\*obs_shape), or a dictionary of such
        :return: (n_samples, ...), or a dictionary of such
        """
        dtype = next(self.policy.parameters()).dtype
        out = preprocess_obs(observations, self.policy.observation_space, self.policy.normalize_images)
        return _map(lambda x: x.to(dtype), out)

    def preprocess(self, observations: Observations) -> Observations:
        r"""
        What SB3 does to observations before the network: one-hot, image scaling, floating point.

        :param observations: (n_tasks, n_samples, \*obs_shape), or a dictionary of such
        :return: (n_tasks, n_samples, ...), or a dictionary of such
        """
        first = next(iter(observations.values())) if isinstance(observations, dict) else observations
        lead = first.shape[:2]
        flat = _map(lambda x: x.flatten(0, 1), observations)
        return _map(lambda x: x.reshape(*lead, *x.shape[1:]), self.preprocess_flat(flat))

    def __call__(self, params: Params, observations: Observations) -> Distribution:
        r"""
        π(·∣s) of every task at its own observations.

        :param params: stacked, each of shape (n_tasks, \*shape)
        :param observations: preprocessed, (n_tasks, n_samples, ...), or a dictionary of such
        :return: distribution with batch shape (n_tasks, n_samples)
        """
        return self.at(observations)(params)

    def at(self, observations: Observations) -> Callable[[Params], Distribution]:
        r"""
        The policy at given observations, as a function of the parameters alone.

        :param observations: preprocessed, (n_tasks, n_samples, ...), or a dictionary of such
        :return: stacked parameters -> distribution with batch shape (n_tasks, n_samples)
        """
        network = self.network_at(observations)
        return lambda params: self.distribution(*network(params))

    def network_at(self, observations: Observations) -> Callable[[Params], tuple[th.Tensor, ...]]:
        r"""
        What :meth:`distribution` needs, at given observations, as a function of the parameters alone.

        Where the network is a perceptron on features without parameters of their own, the features are computed once,
        and the rest by :func:`~sb3_bomrl.core.stacked_mlp.stacked_mlp`; any other network is called task by task
        under ``vmap``.

        :param observations: preprocessed, (n_tasks, n_samples, ...), or a dictionary of such
        :return: stacked parameters -> tensors, each of shape (n_tasks, n_samples, ...)
        """
        if self._layers is None or not isinstance(observations, th.Tensor):
            return lambda params: self._under_vmap(params, observations)
        features = self.module.features_extractor(observations.flatten(0, 1)).unflatten(0, observations.shape[:2])
        layers, has_log_std = self._layers, self.module.log_std is not None

        def perceptron(params: Params) -> tuple[th.Tensor, ...]:
            outputs = stacked_mlp(params, layers, features)
            return (outputs, params["log_std"]) if has_log_std else (outputs,)

        return perceptron

    def _under_vmap(self, params: Params, observations: Observations) -> tuple[th.Tensor, ...]:
        named = {self._inner_names[name]: value for name, value in params.items()}

        def one_task(task_params: Params, obs: Observations) -> tuple[th.Tensor, ...]:
            return functional_call(self.module, task_params, (obs,))

        return vmap(one_task)(named, observations)

    def distribution(self, outputs: th.Tensor, log_std: th.Tensor | None = None) -> Distribution:
        """
        π(·∣s) from what the network put out.

        :param outputs: (n_tasks, n_samples, n_outputs), means or logits
        :param log_std: (n_tasks, action_dim), for Gaussian policies
        :return: distribution with batch shape (n_tasks, n_samples)
        """
        kind = self.policy.action_dist
        if log_std is not None:
            return DiagonalGaussian(outputs, log_std[:, None])
        if isinstance(kind, MultiCategoricalDistribution):
            return MultiCategorical(outputs, kind.action_dims)
        if isinstance(kind, BernoulliDistribution):
            return Independent(Bernoulli(logits=outputs, validate_args=False), 1, validate_args=False)
        return Categorical(logits=outputs, validate_args=False)


_WITHOUT_PARAMETERS = (FlattenExtractor, NormalizedFlattenExtractor)
"""Features extractors that are functions of the observation alone."""


def _map(function: Any, observations: Any) -> Any:
    if isinstance(observations, dict):
        return {key: function(value) for key, value in observations.items()}
    return function(observations)


def update_normalizers(policy: ActorCriticPolicy, observations: Observations) -> None:
    r"""
    Fold observations into every :class:`NormalizedFlattenExtractor` of a policy, and into its batch normalisation.

    :param policy: any policy; nothing happens if it has neither
    :param observations: (..., \*obs_shape)
    """
    extractors = [module for module in policy.modules() if isinstance(module, NormalizedFlattenExtractor)]
    for extractor in extractors:
        assert isinstance(observations, th.Tensor)
        extractor.update(observations.reshape(-1, extractor.features_dim))
    update_batch_norms(policy, observations)
