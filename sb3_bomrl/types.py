"""
Data that travels between the layers.

Axis order is ``(n_tasks, n_steps, n_envs_per_task, ...)`` everywhere: tasks are a batch axis.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch as th

Params: TypeAlias = dict[str, th.Tensor]
"""Parameters by name; stacked parameters carry a leading task axis, ``(n_tasks, *shape)``."""

Task: TypeAlias = Any
"""What an environment's ``set_task`` accepts: a number, an array, a dictionary; ``None`` where there are no tasks."""

Observations: TypeAlias = th.Tensor | dict[str, th.Tensor]
"""A tensor, or a dictionary of tensors for ``spaces.Dict``."""


def map_observations(function: Callable[..., Any], *observations: Any) -> Any:
    """
    Apply a function to observations, or to each part of observations of a ``spaces.Dict``.

    :param function: of as many arrays or tensors as there are observations
    :param observations: arrays or tensors, or mappings of such; the first one gives the keys
    :return: the function's value, or a dictionary of its values
    """
    first = observations[0]
    if not isinstance(first, dict):
        return function(*observations)
    return {key: map_observations(function, *(x[key] for x in observations)) for key in first}


def observation_parts(observations: Any) -> list[Any]:
    """
    List the arrays or tensors that observations consist of.

    :param observations: array or tensor, or a dictionary of such
    :return: that one, or those of the dictionary in its order
    """
    return list(observations.values()) if isinstance(observations, dict) else [observations]


class Rollout(NamedTuple):
    """
    Data of one collection, for all tasks at once.

    ``n, T, E`` below are ``n_tasks, n_steps, n_envs_per_task``. Every phase begins with a reset, so the first step of
    each environment is the first step of an episode.

    :param observations: (n, T, E, \\*obs_shape), or a dictionary of such
    :param actions: (n, T, E, \\*action_shape), as the action distribution samples them (not clipped)
    :param log_probs: (n, T, E), of the actions under the policy that acted
    :param rewards: (n, T, E)
    :param episode_starts: (n, T, E) bool, the observation is the first one of an episode
    :param episode_ends: (n, T, E) bool, nothing after this step belongs to the same episode: it terminated, was
        truncated, or the collection stopped there
    :param truncated: (n, T, E) bool, the step is the last of an episode that did not terminate: a time limit or the end
        of the collection cut it off
    :param final_observations: (n_truncated, \\*obs_shape), the observation after each step of ``truncated``, in
        row-major order
    :param mask: (n, T, E) bool, the steps that count; ``False`` is padding
    :param advantages: (n, T, E), as estimated, neither centred nor scaled
    :param true_rewards: (n, T, E), as the environment gave them; ``rewards`` are those that ``VecNormalize`` shows
    """

    observations: Observations
    actions: th.Tensor
    log_probs: th.Tensor
    rewards: th.Tensor
    episode_starts: th.Tensor
    episode_ends: th.Tensor
    truncated: th.Tensor
    final_observations: Observations
    mask: th.Tensor
    advantages: th.Tensor
    true_rewards: th.Tensor

    @property
    def n_tasks(self) -> int:
        """Length of the task axis."""
        return self.rewards.shape[0]

    def of_tasks(self, tasks: slice) -> "Rollout":
        """
        Return the rollout of some tasks, as views.

        :param tasks: slice of the task axis, of step 1
        :return: rollout of those tasks
        """
        start, stop, _ = tasks.indices(self.n_tasks)
        n_final = [0, *self.truncated.sum((1, 2)).cumsum(0).tolist()]
        final = map_observations(lambda x: x[n_final[start] : n_final[stop]], self.final_observations)
        taken = {
            name: map_observations(lambda x: x[tasks], getattr(self, name))
            for name in self._fields
            if name != "final_observations"
        }
        return Rollout(final_observations=final, **taken)


class Batch(NamedTuple):
    """
    A rollout in the form that the learning phase reads, steps and environments joined to ``n_samples`` = T · E.

    :param observations: (n_tasks, n_samples, \\*obs_shape), preprocessed for the network, or a dictionary of such
    :param actions: (n_tasks, n_samples, \\*action_shape)
    :param log_probs: (n_tasks, n_samples), under the policy that acted
    :param advantages: (n_tasks, n_samples)
    :param weights: (n_tasks, n_samples), non-negative, sum to one per task: the estimate of the state visitation
    """

    observations: Observations
    actions: th.Tensor
    log_probs: th.Tensor
    advantages: th.Tensor
    weights: th.Tensor


class Experience(NamedTuple):
    """
    One phase's data in three forms.

    :param rollout: with its time axis
    :param steps: every step as one sample, n_samples = n_steps · n_envs_per_task
    :param batch: as the objectives read it: the steps, or fewer weighted samples with the same objectives
    :param n_adapted: times that the policy which acted had been adapted
    """

    rollout: Rollout
    steps: Batch
    batch: Batch
    n_adapted: int = 0


class Adaptation(NamedTuple):
    """
    The solution of the lower level, Eq. (A2), for all tasks at once.

    :param params: adapted parameters θ', each of shape (n_tasks, \\*shape)
    :param n_steps: (n_tasks,) optimisation steps taken
    :param objective: (n_tasks,) F(θ', φ)
    :param distance: (n_tasks,) D(φ, θ')
    :param kl: (n_tasks,) mean KL(π_φ ‖ π_θ') in nats, whatever the distance
    :param gradient_norm: (n_tasks,) ‖∇_θ F(θ', φ)‖
    :param status: (n_tasks,) int, see :class:`~sb3_bomrl.core.inner_solvers.InnerStatus`
    """

    params: Params
    n_steps: th.Tensor
    objective: th.Tensor
    distance: th.Tensor
    kl: th.Tensor
    gradient_norm: th.Tensor
    status: th.Tensor


class MetaBatch(NamedTuple):
    """
    The data of one meta-iteration, and the adaptations to them.

    :param meta_params: φ, each of shape (n_tasks, \\*shape)
    :param supports: pre-adaptation data of every support phase: of φ, then of each adaptation but the last
    :param adapted: the adaptation to each of them, the last one being θ'
    :param query: post-adaptation data, of θ'
    """

    meta_params: Params
    supports: tuple[Experience, ...]
    adapted: tuple[Adaptation, ...]
    query: Experience

    @property
    def adapted_params(self) -> Params:
        """θ', stacked."""
        return self.adapted[-1].params

    @property
    def n_tasks(self) -> int:
        """Length of the task axis."""
        return self.query.rollout.n_tasks
