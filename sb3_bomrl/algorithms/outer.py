"""The outer step on an SB3 policy: trust region or the policy's own optimiser, and the critic's regression."""

from collections.abc import Callable, Iterator

import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_bomrl.core.distances import policy_kl
from sb3_bomrl.core.fisher import fisher_vector_product
from sb3_bomrl.core.linear_solve import MatVec
from sb3_bomrl.core.threads import map_in_threads
from sb3_bomrl.core.trust_region import OuterInfo, TrustRegion, trust_region_step
from sb3_bomrl.meta.chunks import can_parallelize, sample_chunks
from sb3_bomrl.policies.actor import Actor
from sb3_bomrl.policies.batch_norm import take_samples
from sb3_bomrl.types import Batch, Observations, Params, Rollout, map_observations

OUTER_STEPS: tuple[str, ...] = ("trpo", "adam")

TRUST_REGIONS: tuple[str, ...] = ("adapted", "meta")
"""The policies whose KL the outer step is bounded by."""


def _all_in_one(observations: Observations) -> Observations:
    """(n_tasks, n_samples, ...) -> (1, n_tasks · n_samples, ...)."""
    return map_observations(lambda x: x.flatten(0, 1)[None], observations)


def mean_kl(actor: Actor, meta_params: Params, support: Batch) -> Callable[[Params], th.Tensor]:
    r"""
    Return φ_new -> KL(π_φ ‖ π_φ_new), averaged over the pre-adaptation states of the whole meta-batch.

    :param actor: policy as a function of stacked parameters
    :param meta_params: φ, each of shape \*shape
    :param support: pre-adaptation data of all tasks
    :return: differentiable function of unstacked parameters
    """
    policy, weights = actor.at(_all_in_one(support.observations)), support.weights.flatten()[None]
    weights = weights / weights.sum()
    with th.no_grad():
        old = policy({name: value[None] for name, value in meta_params.items()})

    def kl(params: Params) -> th.Tensor:
        return policy_kl(old, policy({name: value[None] for name, value in params.items()}), weights)[0]

    return kl


def mean_adapted_kl(
    actor: Actor, adapt_again: Callable[[Params], Params], adapted_params: Params, query: Batch
) -> Callable[[Params], th.Tensor]:
    r"""
    Return φ_new -> KL(π_θ' ‖ π_θ'_new) at the post-adaptation states, averaged over them and over tasks.

    θ'_new is the adaptation of φ_new to the support data that θ' was adapted to.

    :param actor: policy as a function of stacked parameters
    :param adapt_again: φ_new -> θ'_new, each of shape (n_tasks, \*shape)
    :param adapted_params: θ', same shapes
    :param query: post-adaptation data
    :return: function of unstacked parameters
    """
    policy = actor.at(query.observations)
    with th.no_grad():
        old = policy(adapted_params)

    def kl(params: Params) -> th.Tensor:
        new = adapt_again(params)
        with th.no_grad():
            return policy_kl(old, policy(new), query.weights).mean()

    return kl


def mean_fisher(actor: Actor, meta_params: Params, support: Batch, sub_sampling_factor: int = 1) -> MatVec:
    r"""
    Return products with the Fisher matrix at φ, averaged over the pre-adaptation states of the whole meta-batch.

    :param actor: policy as a function of stacked parameters
    :param meta_params: φ, each of shape \*shape
    :param support: pre-adaptation data of all tasks
    :param sub_sampling_factor: use one sample of each task in this many
    :return: (1, n_params) -> (1, n_params)
    """
    phi = {name: value[None] for name, value in meta_params.items()}
    observations = _all_in_one(map_observations(lambda x: x[:, ::sub_sampling_factor], support.observations))
    weights = support.weights[:, ::sub_sampling_factor].flatten()[None]
    weights = weights / weights.sum()
    parts, parallel = sample_chunks(actor, weights.shape[1]), can_parallelize(actor, support)

    def of_part(part: slice) -> MatVec:
        observed = map_observations(lambda x: x[:, part], observations)
        return _fisher_of_part(actor, phi, observed, weights[:, part])

    products = map_in_threads(of_part, parts, parallel)
    return lambda v: th.stack(map_in_threads(lambda product: product(v), products, parallel)).sum(0)


def _fisher_of_part(actor: Actor, phi: Params, observations: Observations, weights: th.Tensor) -> MatVec:
    network = actor.network_at(observations)
    with th.no_grad():
        old = actor.distribution(*network(phi))
    return fisher_vector_product(
        network, lambda *outputs: policy_kl(old, actor.distribution(*outputs), weights).sum(), phi
    )


def trpo_step(
    actor: Actor,
    meta_params: Params,
    gradient: Params,
    support: Batch,
    settings: TrustRegion,
    improvement: Callable[[Params], float] | None,
    sub_sampling_factor: int = 1,
    kl: Callable[[Params], th.Tensor] | None = None,
) -> OuterInfo:
    r"""
    Take a natural-gradient step on the policy's meta-parameters within a KL radius.

    The Fisher matrix is that of the meta-policy, whatever the KL is of.

    :param actor: brings the policy that is changed
    :param meta_params: φ, each of shape \*shape
    :param gradient: meta-gradient, same shapes
    :param support: pre-adaptation data
    :param settings: radius and limits
    :param improvement: φ_new -> gain of the outer surrogate
    :param sub_sampling_factor: the Fisher matrix uses one state in this many; the KL uses all
    :param kl: φ_new -> KL that the radius bounds; :func:`mean_kl` if not given
    :return: report of the step
    """
    kl = mean_kl(actor, meta_params, support) if kl is None else kl
    fisher = mean_fisher(actor, meta_params, support, sub_sampling_factor)
    new_params, info = trust_region_step(meta_params, gradient, kl, settings, improvement, fisher)
    actor.load_params(new_params)
    return info


def adam_step(actor: Actor, meta_params: Params, gradient: Params, support: Batch, max_grad_norm: float) -> OuterInfo:
    r"""
    Ascend with the policy's own optimiser (SB3's Adam, whose state is saved with the model).

    :param actor: brings the policy and its optimiser
    :param meta_params: φ, each of shape \*shape
    :param gradient: meta-gradient, same shapes
    :param support: pre-adaptation data, for the report
    :param max_grad_norm: the gradient is scaled down to this norm
    :return: report of the step
    """
    ascend = {name: -value for name, value in gradient.items()}
    _optimizer_step(actor.policy, ascend, max_grad_norm)
    with th.no_grad():
        kl = float(mean_kl(actor, meta_params, support)(actor.params()))
    return OuterInfo(kl, float("nan"), 0, True, float("nan"))


def _optimizer_step(policy: ActorCriticPolicy, gradients: Params, max_grad_norm: float) -> None:
    """Step the policy's optimiser on some parameters alone; those without a gradient stay where they are."""
    named = dict(policy.named_parameters())
    policy.optimizer.zero_grad(set_to_none=True)
    for name, value in gradients.items():
        named[name].grad = value
    th.nn.utils.clip_grad_norm_([named[name] for name in gradients], max_grad_norm)
    policy.optimizer.step()
    policy.optimizer.zero_grad(set_to_none=True)


def fit_value_net(
    actor: Actor, rollout: Rollout, n_epochs: int, batch_size: int, max_grad_norm: float, seed: int
) -> float:
    """
    Regress the policy's critic on returns, leaving every parameter that the actor uses alone.

    :param actor: brings the policy and its optimiser
    :param rollout: pre-adaptation data
    :param n_epochs: passes over the data
    :param batch_size: samples per gradient step
    :param max_grad_norm: gradients are scaled down to this norm
    :param seed: of the shuffling
    :return: mean squared error in the last pass
    :raises FloatingPointError: if it is not finite
    """
    policy = actor.policy
    critic = {n: p for n, p in policy.named_parameters() if n not in actor.parameters and p.requires_grad}
    observations = map_observations(lambda x: x.flatten(0, 2), rollout.observations)
    with th.no_grad():
        values = th.cat(
            [_critic(policy, observations, part) for part in th.arange(rollout.rewards.numel()).split(4096)]
        )
        # TD(λ) returns are advantages plus the values they were estimated with
        flat_targets = values + rollout.advantages.reshape(-1).to(values)
    losses: list[float] = []
    for indices in _minibatches(len(flat_targets), n_epochs, batch_size, seed):
        loss = th.nn.functional.mse_loss(_critic(policy, observations, indices), flat_targets[indices])
        if not loss.isfinite():
            raise FloatingPointError(f"loss of the value network is not finite: {float(loss.detach())}")
        if critic:
            gradients = th.autograd.grad(loss, list(critic.values()))
            _optimizer_step(policy, dict(zip(critic, gradients, strict=True)), max_grad_norm)
        losses.append(float(loss.detach()))
    n_last = -(-len(flat_targets) // batch_size)
    return sum(losses[-n_last:]) / n_last


def _critic(policy: ActorCriticPolicy, observations: Observations, indices: th.Tensor) -> th.Tensor:
    """Values of some samples, (n_indices,)."""
    return policy.predict_values(take_samples(observations, indices, policy.device)).flatten()


def _minibatches(n_samples: int, n_epochs: int, batch_size: int, seed: int) -> Iterator[th.Tensor]:
    generator = th.Generator().manual_seed(seed)
    for _ in range(n_epochs):
        yield from th.randperm(n_samples, generator=generator).split(batch_size)
