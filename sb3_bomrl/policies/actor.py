"""The actor of an SB3 policy, called as a function of (stacked) parameters."""

from collections.abc import Callable

import torch as th
from stable_baselines3.common.distributions import (
    BernoulliDistribution,
    CategoricalDistribution,
    DiagGaussianDistribution,
    MultiCategoricalDistribution,
)
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch.distributions import Bernoulli, Categorical, Distribution, Independent
from torch.func import functional_call, vmap

from sb3_bomrl.core.params import stack
from sb3_bomrl.core.stacked_mlp import stacked_mlp
from sb3_bomrl.policies.batch_norm import check_batch_norms
from sb3_bomrl.policies.distributions import DiagonalGaussian, MultiCategorical
from sb3_bomrl.policies.extractors import NormalizedFlattenExtractor
from sb3_bomrl.policies.modules import ActorModule, all_differentiable, counting_units, find_layers, zero_observation
from sb3_bomrl.types import Observations, Params, map_observations, observation_parts


class Actor:
    """
    The actor of an SB3 policy as a function of stacked parameters.

    The parameters are those that the action distribution depends on; the rest of the policy (critic, buffers) is read
    from the policy and never changed. So are parameters with ``requires_grad=False``, whenever that was set.
    ``n_units`` is the number of outputs of all parts of the network, for one observation.

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
        named, inner = dict(policy.named_parameters()), {id(p): n for n, p in self.module.named_parameters()}
        self.parameters = {name: named[name] for name in self._find_names()}
        self._inner_names = {name: inner[id(value)] for name, value in self.parameters.items()}
        self._layers = None
        if type(self.module.features_extractor) in _WITHOUT_PARAMETERS:
            names = {id(parameter): name for name, parameter in named.items()}
            self._layers = find_layers(self.module, names)
        self._is_vmappable = self._layers is not None or self._can_vmap()

    @property
    def is_thread_safe(self) -> bool:
        """True if several threads may evaluate it at once, each with its own parameters."""
        return self._layers is not None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of :attr:`parameters` that are not frozen."""
        return tuple(name for name, value in self.parameters.items() if value.requires_grad)

    def _find_names(self) -> tuple[str, ...]:
        """Names of the policy's parameters that the action distribution depends on, found by differentiating it."""
        zeros = zero_observation(self.policy.observation_space, self.policy.device)
        named = dict(self.policy.named_parameters())
        was_training = self.policy.training
        self.policy.set_training_mode(False)
        with th.enable_grad(), all_differentiable(named.values()), counting_units(self.module) as n_units:
            total = th.stack([out.sum() for out in self.module(self.preprocess_flat(zeros))]).sum()
            gradients = th.autograd.grad(total, list(named.values()), allow_unused=True)
        self.n_units = n_units.total()
        self.policy.set_training_mode(was_training)
        return tuple(name for name, g in zip(named, gradients, strict=True) if g is not None)

    def params(self) -> Params:
        r"""
        Return the meta-parameters φ.

        :return: copies, each of shape \*shape
        :raises ValueError: if all are frozen
        """
        if not self.names:
            raise ValueError(
                "policy must have a parameter with requires_grad=True that its actions depend on, got none"
            )
        return {name: self.parameters[name].detach().clone() for name in self.names}

    @th.no_grad()
    def load_params(self, params: Params) -> None:
        r"""
        Write parameters into the policy.

        :param params: as from :meth:`params`, each of shape \*shape
        """
        for name, value in params.items():
            self.parameters[name].copy_(value)

    def preprocess_flat(self, observations: Observations) -> Observations:
        """
        Preprocess as :meth:`preprocess` does, without the axis of tasks.

        :param observations: (n_samples, \\*obs_shape), or a dictionary of such
        :return: (n_samples, ...), or a dictionary of such
        """
        dtype = next(self.policy.parameters()).dtype
        out = preprocess_obs(observations, self.policy.observation_space, self.policy.normalize_images)
        return map_observations(lambda x: x.to(dtype), out)

    def preprocess(self, observations: Observations) -> Observations:
        r"""
        Preprocess observations for the network, as SB3 does: one-hot, image scaling, floating point.

        :param observations: (n_tasks, n_samples, \*obs_shape), or a dictionary of such
        :return: (n_tasks, n_samples, ...), or a dictionary of such
        """
        lead = observation_parts(observations)[0].shape[:2]
        flat = map_observations(lambda x: x.flatten(0, 1), observations)
        return map_observations(lambda x: x.reshape(*lead, *x.shape[1:]), self.preprocess_flat(flat))

    def __call__(self, params: Params, observations: Observations) -> Distribution:
        r"""
        Compute π(·∣s) of every task at its own observations.

        :param params: stacked, each of shape (n_tasks, \*shape)
        :param observations: preprocessed, (n_tasks, n_samples, ...), or a dictionary of such
        :return: distribution with batch shape (n_tasks, n_samples)
        """
        return self.at(observations)(params)

    def at(self, observations: Observations) -> Callable[[Params], Distribution]:
        r"""
        Fix the observations, and return the policy as a function of the parameters.

        :param observations: preprocessed, (n_tasks, n_samples, ...), or a dictionary of such
        :return: stacked parameters -> distribution with batch shape (n_tasks, n_samples)
        """
        network = self.network_at(observations)
        return lambda params: self.distribution(*network(params))

    def network_at(self, observations: Observations) -> Callable[[Params], tuple[th.Tensor, ...]]:
        r"""
        Fix the observations, and return the arguments of :meth:`distribution` as a function of the parameters.

        Where the network is a perceptron on features without parameters of their own, the features are computed once,
        and the rest by :func:`~sb3_bomrl.core.stacked_mlp.stacked_mlp`; any other network is called under ``vmap``, or
        task by task where that has no rule for one of its layers.

        :param observations: preprocessed, (n_tasks, n_samples, ...), or a dictionary of such
        :return: stacked parameters -> tensors, each of shape (n_tasks, n_samples, ...)
        """
        if self._layers is None or not isinstance(observations, th.Tensor):
            return lambda params: self._under_vmap(params, observations)
        features = self.module.features_extractor(observations.flatten(0, 1)).unflatten(0, observations.shape[:2])
        layers, has_log_std = self._layers, self.module.log_std is not None

        def perceptron(params: Params) -> tuple[th.Tensor, ...]:
            params = {**self._frozen(params), **params}
            outputs = stacked_mlp(params, layers, features)
            return (outputs, params["log_std"]) if has_log_std else (outputs,)

        return perceptron

    def _under_vmap(self, params: Params, observations: Observations) -> tuple[th.Tensor, ...]:
        named = {self._inner_names[name]: value for name, value in params.items()}

        def one_task(task_params: Params, obs: Observations) -> tuple[th.Tensor, ...]:
            return functional_call(self.module, task_params, (obs,))

        if self._is_vmappable:
            return vmap(one_task)(named, observations)
        n_tasks = len(next(iter(named.values())))
        outputs = [
            one_task(
                {name: value[i] for name, value in named.items()}, map_observations(lambda x, i=i: x[i], observations)
            )
            for i in range(n_tasks)
        ]
        return tuple(th.stack(parts) for parts in zip(*outputs, strict=True))

    def _frozen(self, params: Params) -> Params:
        """The parameters that ``params`` leaves out, the same for every task."""
        if len(params) == len(self.parameters):
            return {}
        n_tasks = len(next(iter(params.values())))
        return {
            name: value.detach().expand(n_tasks, *value.shape)
            for name, value in self.parameters.items()
            if name not in params
        }

    def _can_vmap(self) -> bool:
        """Try ``vmap`` on two tasks; networks with layers that it has no rule for are called task by task."""
        zeros = zero_observation(self.policy.observation_space, self.policy.device)
        observations = map_observations(lambda x: x[None].repeat(2, *[1] * x.dim()), self.preprocess_flat(zeros))
        self._is_vmappable = True
        was_training = self.policy.training
        self.policy.set_training_mode(False)
        try:
            with th.no_grad():
                self._under_vmap(stack({n: p.detach() for n, p in self.parameters.items()}, 2), observations)
        except (RuntimeError, NotImplementedError):
            return False
        finally:
            self.policy.set_training_mode(was_training)
        return True

    def distribution(self, outputs: th.Tensor, log_std: th.Tensor | None = None) -> Distribution:
        """
        Make π(·∣s) from the network's outputs.

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
