"""Data collection on a VecEnv: every environment plays its task with that task's own parameters."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize

from sb3_bomrl.core.action_distributions import mode, sample
from sb3_bomrl.policies import Actor
from sb3_bomrl.rollout.assemble import assemble, concatenate
from sb3_bomrl.rollout.normalization import FrozenNormalizer
from sb3_bomrl.rollout.tasks import set_tasks, split_in_waves
from sb3_bomrl.types import Params, Rollout, Task

Estimator = Callable[[Rollout], Rollout]
"""Fills in the advantages of a rollout."""


class StopCollection(Exception):
    """A callback asked to stop."""


class Step(NamedTuple):
    """
    One step of all environments.

    :param obs: what the policy saw, (n_envs, \\*obs_shape) or a dictionary of such
    :param actions: (n_envs, \\*action_shape), as sampled
    :param clipped_actions: (n_envs, \\*action_shape), as performed
    :param log_probs: (n_envs,) tensor
    :param episode_starts: (n_envs,) bool
    :param new_obs: observations after the step (after the reset where an episode ended)
    :param rewards: (n_envs,)
    :param dones: (n_envs,) bool
    :param infos: one dictionary per environment
    """

    obs: Any
    actions: np.ndarray
    clipped_actions: np.ndarray
    log_probs: th.Tensor
    episode_starts: np.ndarray
    new_obs: Any
    rewards: np.ndarray
    dones: np.ndarray
    infos: list[dict[str, Any]]


class Hooks(NamedTuple):
    """
    What is told about a collection while it runs.

    :param on_start: before the first step of each wave
    :param on_step: after each vectorised step, with the step and its number; returns whether to go on
    :param on_end: after the last step of each wave, with its rollout
    """

    on_start: Callable[[], None] = lambda: None
    on_step: Callable[[Step, int], bool] = lambda step, number: True
    on_end: Callable[[Rollout], None] = lambda rollout: None


class RolloutCollector:
    """
    Collects rollouts for many tasks at once, in waves where there are more tasks than environments.

    Every wave gives the environments their tasks and seeds, resets them once, and steps them without a Python loop
    over environments. Actions and seeds come from the generator alone, so a collection is a function of the
    parameters, the tasks and the generator's state.

    :param env: environments to step
    :param actor: policy as a function of stacked parameters
    :param generator: source of the environments' seeds and of the actions
    :param estimate: fills in the advantages of a rollout
    :param normalizer: gathers the statistics of a ``VecNormalize``
    """

    def __init__(
        self,
        env: VecEnv,
        actor: Actor,
        generator: np.random.Generator,
        estimate: Estimator,
        normalizer: FrozenNormalizer | None = None,
    ) -> None:
        self.env = env
        self.actor = actor
        self.generator = generator
        self.estimate = estimate
        self.normalizer = normalizer if normalizer is not None else FrozenNormalizer(None)

    def collect(
        self, tasks: Sequence[Task], params: Params, buffer: RolloutBuffer, hooks: Hooks | None = None
    ) -> Rollout:
        r"""
        Play a fixed number of steps in every environment.

        Each wave is stored in ``buffer`` (whose ``reset`` allocates new arrays); the rollout is a view of it.

        :param tasks: one task per entry of the parameters' leading axis
        :param params: stacked parameters, each of shape (n_tasks, \*shape)
        :param buffer: SB3 rollout buffer; its ``buffer_size`` is the number of steps
        :param hooks: what to tell while collecting
        :return: rollout of all tasks
        :raises StopCollection: if ``hooks.on_step`` asks for it
        :raises FloatingPointError: for an observation or reward that is not finite
        """
        hooks = hooks if hooks is not None else Hooks()
        rollouts = []
        for wave_tasks, wave_params in self._waves(tasks, params):
            hooks.on_start()
            buffer.reset()
            ends: list[np.ndarray] = []
            cuts: list[tuple[int, int, Any]] = []
            steps = self._steps(wave_tasks, wave_params, deterministic=False)
            for number, step in zip(range(buffer.buffer_size), steps, strict=False):
                buffer.add(
                    step.obs,
                    step.actions,
                    step.rewards,
                    step.episode_starts,
                    th.zeros(len(step.dones)),
                    step.log_probs,
                )
                ends.append(step.dones)
                cuts += _truncations(number, step)
                if not hooks.on_step(step, number):
                    raise StopCollection
            cuts += [(number, i, _pick(step.new_obs, i)) for i in np.flatnonzero(~step.dones)]
            ends[-1] = np.ones_like(ends[-1])
            arrays = {name: getattr(buffer, name) for name in ("observations", "actions", "log_probs", "rewards")}
            rollout = assemble(
                arrays, buffer.episode_starts.astype(bool), np.stack(ends), cuts, len(wave_tasks), self.env
            )
            rollout = self.estimate(rollout)
            self._fill(buffer, rollout)
            hooks.on_end(rollout)
            rollouts.append(rollout)
        return concatenate(rollouts)

    def collect_episodes(
        self,
        tasks: Sequence[Task],
        params: Params,
        n_episodes: int,
        deterministic: bool = False,
        max_steps: int = 100_000,
    ) -> Rollout:
        r"""
        Play a number of whole episodes of every task, shared evenly by its environments.

        The statistics of a ``VecNormalize`` stand still meanwhile: what is played here is no training data.

        Each environment counts its own episodes, so that short ones are not favoured; what it plays beyond its share
        is masked.

        :param tasks: one task per entry of the parameters' leading axis
        :param params: stacked parameters, each of shape (n_tasks, \*shape)
        :param n_episodes: episodes per task, at least 1
        :param deterministic: take the most probable action
        :param max_steps: give up after this many steps of an environment
        :return: rollout of all tasks, with padding masked
        :raises ValueError: if an episode does not end within ``max_steps``
        :raises FloatingPointError: for an observation or reward that is not finite
        """
        frozen = FrozenNormalizer(unwrap_vec_normalize(self.env))
        frozen.freeze()
        try:
            waves = self._waves(tasks, params)
            rollouts = [self._whole_episodes(*wave, n_episodes, deterministic, max_steps) for wave in waves]
        finally:
            frozen.release()
        return concatenate(rollouts)

    def _whole_episodes(
        self, tasks: Sequence[Task], params: Params, n_episodes: int, deterministic: bool, max_steps: int
    ) -> Rollout:
        """One wave of :meth:`collect_episodes`."""
        n_envs = self.env.num_envs
        quota = np.tile(_shares(n_episodes, n_envs // len(tasks)), len(tasks))
        played = np.zeros(n_envs, dtype=int)
        steps: list[Step] = []
        masks: list[np.ndarray] = []
        cuts: list[tuple[int, int, Any]] = []
        for number, step in enumerate(self._steps(tasks, params, deterministic)):
            counts = played < quota
            steps.append(step)
            masks.append(counts)
            cuts += [cut for cut in _truncations(number, step) if counts[cut[1]]]
            played += step.dones & counts
            if (played >= quota).all():
                break
            if number + 1 >= max_steps:
                raise ValueError(
                    f"an episode did not end within max_steps={max_steps} steps: "
                    "register the environment with max_episode_steps, or raise max_steps"
                )
        arrays = {
            "observations": _stack([step.obs for step in steps]),
            "actions": np.stack([step.actions for step in steps]),
            "log_probs": np.stack([step.log_probs.cpu().numpy() for step in steps]),
            "rewards": np.stack([step.rewards for step in steps]).astype(np.float32),
        }
        starts = np.stack([step.episode_starts for step in steps])
        ends = np.stack([step.dones for step in steps])
        rollout = assemble(arrays, starts, ends, cuts, len(tasks), self.env, np.stack(masks))
        return self.estimate(rollout)

    def _waves(self, tasks: Sequence[Task], params: Params) -> Iterator[tuple[Sequence[Task], Params]]:
        n_wave, _ = split_in_waves(len(tasks), self.env.num_envs, "number of tasks")
        for start in range(0, len(tasks), n_wave):
            chosen = slice(start, start + n_wave)
            yield tasks[chosen], {name: value[chosen] for name, value in params.items()}

    def _steps(self, tasks: Sequence[Task], params: Params, deterministic: bool) -> Iterator[Step]:
        """Set the tasks, reset, then act for ever."""
        env, policy = self.env, self.actor.policy
        policy.set_training_mode(False)
        n_tasks = len(tasks)
        set_tasks(env, [task for task in tasks for _ in range(env.num_envs // n_tasks)])
        env.seed(int(self.generator.integers(2**31 - env.num_envs)))
        noise = th.Generator(policy.device).manual_seed(int(self.generator.integers(2**63)))
        obs = env.reset()
        self.normalizer.observe()
        check_finite("observation", obs, tasks, 0)
        episode_starts = np.ones(env.num_envs, dtype=bool)
        number = 0
        while True:
            with th.no_grad():
                per_task = _by_task(obs_as_tensor(obs, policy.device), n_tasks)
                distribution = self.actor(params, self.actor.preprocess(per_task))
                chosen = mode(distribution) if deterministic else sample(distribution, noise)
                log_probs = distribution.log_prob(chosen).flatten()
            actions = chosen.flatten(0, 1).cpu().numpy()
            clipped = self._clip(actions)
            new_obs, rewards, dones, infos = env.step(clipped)
            number += 1
            self.normalizer.observe(dones)
            check_finite("observation", new_obs, tasks, number)
            check_finite("reward", rewards, tasks, number)
            yield Step(obs, actions, clipped, log_probs, episode_starts, new_obs, rewards, dones, infos)
            obs, episode_starts = new_obs, dones

    def _clip(self, actions: np.ndarray) -> np.ndarray:
        space = self.env.action_space
        if isinstance(space, spaces.Box):
            return np.clip(actions.reshape(-1, *space.shape), space.low, space.high)
        return actions.astype(space.dtype)

    @staticmethod
    def _fill(buffer: RolloutBuffer, rollout: Rollout) -> None:
        """Show the advantages in SB3's buffer, where callbacks look for them."""
        shape = buffer.advantages.shape
        buffer.advantages = rollout.advantages.transpose(0, 1).reshape(shape).float().cpu().numpy()


def check_finite(name: str, values: Any, tasks: Sequence[Task], step: int) -> None:
    r"""
    Stop at the first number that is not finite.

    :param name: what the values are
    :param values: (n_envs, \*shape), or a dictionary of such
    :param tasks: the tasks the environments play, each in equally many
    :param step: number of the step, for the error
    :raises FloatingPointError: that says which environment, task and step
    """
    if isinstance(values, dict):
        for key, value in values.items():
            check_finite(f"{name} {key!r}", value, tasks, step)
        return
    if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
        index = int(np.argwhere(~np.isfinite(values))[0][0])
        task = tasks[index * len(tasks) // len(values)]
        raise FloatingPointError(
            f"{name} from environment {index} (task {task!r}) at step {step} is not finite: {values[index]}"
        )


def _by_task(obs: Any, n_tasks: int) -> Any:
    if isinstance(obs, dict):
        return {key: _by_task(value, n_tasks) for key, value in obs.items()}
    return obs.reshape(n_tasks, -1, *obs.shape[1:])


def _pick(obs: Any, index: int) -> Any:
    return {key: value[index] for key, value in obs.items()} if isinstance(obs, dict) else obs[index]


def _stack(observations: list[Any]) -> Any:
    if isinstance(observations[0], dict):
        return {key: np.stack([obs[key] for obs in observations]) for key in observations[0]}
    return np.stack(observations)


def _truncations(number: int, step: Step) -> list[tuple[int, int, Any]]:
    """(step, environment, final observation) of the episodes that a time limit cut off at this step."""
    return [
        (number, int(i), step.infos[i]["terminal_observation"])
        for i in np.flatnonzero(step.dones)
        if step.infos[i].get("TimeLimit.truncated", False)
    ]


def _shares(total: int, n_parts: int) -> np.ndarray:
    """Split ``total`` as evenly as possible."""
    return np.array([total // n_parts + (i < total % n_parts) for i in range(n_parts)])
