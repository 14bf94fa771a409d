"""Rollouts as the learning phase reads them."""

import torch as th

from sb3_bomrl.core.advantages import centre, normalize
from sb3_bomrl.policies.actor import Actor
from sb3_bomrl.types import Batch, Rollout, map_observations


def state_visitation(rollout: Rollout, discount: float = 1.0) -> th.Tensor:
    """
    Weigh every step that counts, ν of the equations up to its scale.

    :param rollout: any
    :param discount: γ to weigh the t-th step of an episode by γ^t, 1 to weigh all steps equally
    :return: (n_tasks, n_steps, n_envs_per_task), double precision, 0 where the mask is ``False``
    """
    weights = rollout.mask.double()
    return weights * discount ** steps_in_episode(rollout).double() if discount < 1.0 else weights


def steps_in_episode(rollout: Rollout) -> th.Tensor:
    """
    Count the steps since the episode began.

    :param rollout: any
    :return: (n_tasks, n_steps, n_envs_per_task), 0 at the first step
    """
    index = th.arange(rollout.rewards.shape[1])[None, :, None].expand(rollout.rewards.shape)
    start = th.where(rollout.episode_starts, index, 0).cummax(1).values
    return index - start


def make_batch(
    rollout: Rollout, actor: Actor, visitation: th.Tensor, normalize_advantage: bool, shared_scale: bool = False
) -> Batch:
    """
    Put a rollout on the policy's device, with steps and environments joined.

    :param rollout: with advantages
    :param actor: brings the preprocessing, the device and the precision
    :param visitation: weight of every step, from :func:`state_visitation`
    :param normalize_advantage: scale the advantages of each task to unit standard deviation; else only centre them
    :param shared_scale: one standard deviation for all tasks. Query data need it: with a scale per task, the outer
        objective would weigh each task's return by 1 / std(A_τ), which is not Eq. (A1)
    :return: batch with n_samples = n_steps · n_envs_per_task
    """
    reference = next(actor.policy.parameters())
    if normalize_advantage:
        advantages = normalize(rollout.advantages, rollout.mask, rollout.rewards, shared_scale)
    else:
        advantages = centre(rollout.advantages, rollout.mask)
    weights = visitation / visitation.sum((1, 2), keepdim=True)
    observations = map_observations(lambda x: x.flatten(1, 2).to(reference.device), rollout.observations)
    return Batch(
        observations=actor.preprocess(observations),
        actions=_by_component(rollout.actions.flatten(1, 2).to(reference.device)),
        log_probs=rollout.log_probs.flatten(1, 2).to(reference),
        advantages=advantages.flatten(1, 2).to(reference),
        weights=weights.flatten(1, 2).to(reference),
    )


def _by_component(actions: th.Tensor) -> th.Tensor:
    """Give vectors of real numbers the memory layout of the network's outputs, so that sums run along the samples."""
    return actions.mT.contiguous().mT if actions.dim() == 3 and actions.is_floating_point() else actions


def merge_samples(batch: Batch, n_actions: int) -> Batch:
    """
    Merge the samples of a softmax table to at most 2 · n_states · n_actions weighted ones.

    A table gives all samples of one state and action the same probability, so their weights add up and their advantages
    average. Positive and negative advantages are kept apart, because the clipped surrogate treats them differently.
    Every objective of the package keeps its value and its derivatives of all orders.

    :param batch: observations one-hot, (n_tasks, n_samples, n_states) or (n_tasks, n_samples, 1, n_states); of each
        task's own policy, so that equal states and actions have equal ``log_probs``
    :param n_actions: number of actions
    :return: batch with n_samples = 2 · n_states · n_actions; cells that were not visited have weight 0
    """
    assert isinstance(batch.observations, th.Tensor)
    one_hot = batch.observations.flatten(2)
    n_tasks, _, n_states = one_hot.shape
    cell = 2 * (one_hot.argmax(-1) * n_actions + batch.actions) + (batch.advantages >= 0)
    n_cells = 2 * n_states * n_actions

    def total(values: th.Tensor) -> th.Tensor:
        return th.zeros(n_tasks, n_cells, dtype=th.double, device=values.device).scatter_add_(1, cell, values.double())

    weights = total(batch.weights)
    gains = total(batch.weights * batch.advantages)
    log_probs = total(batch.log_probs) / total(th.ones_like(batch.log_probs)).clamp(min=1.0)
    index = th.arange(n_cells, device=cell.device).expand(n_tasks, -1)
    states = th.eye(n_states, dtype=one_hot.dtype, device=cell.device)[index // (2 * n_actions)]
    return Batch(
        observations=states.reshape(n_tasks, n_cells, *batch.observations.shape[2:]),
        actions=index // 2 % n_actions,
        log_probs=log_probs.to(batch.log_probs.dtype),
        advantages=th.where(weights > 0, gains / weights, 0.0).to(batch.advantages.dtype),
        weights=weights.to(batch.weights.dtype),
    )
