"""Merging the samples of a softmax table: what happens in one state with one action is one sample."""

import torch as th

from sb3_bomrl.types import Batch


def merge_samples(batch: Batch, n_actions: int) -> Batch:
    """
    The same objectives from at most 2 · n_states · n_actions weighted samples.

    A table gives all samples of one state and action the same probability, so their weights add up and their advantages
    average. Positive and negative advantages are kept apart, because the clipped surrogate treats them differently;
    thus every objective of the package has the same value and the same derivatives of all orders as before.

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
