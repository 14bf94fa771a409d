"""Data collection on a VecEnv: every environment plays its task with that task's own parameters."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize

from sb3_bomrl.policies.actor import Actor
from sb3_bomrl.rollout.acting import acting, clip_actions
from sb3_bomrl.rollout.assemble import assemble, concatenate
from sb3_bomrl.rollout.normalization import FrozenNormalizer
from sb3_bomrl.rollout.steps import (
    Hooks,
    Step,
    StopCollection,
    by_task,
    check_final_observations,
    check_finite,
    pick,
    shares,
    stack_steps,
    truncations,
)
from sb3_bomrl.rollout.tasks import set_tasks, split_in_waves
from sb3_bomrl.rollout.time_limit import check_episode_lengths, time_limit
from sb3_bomrl.rollout.workers import with_watched_workers
from sb3_bomrl.types import Params, Rollout, Task
from sb3_bomrl.vec_env import BatchTaskVecEnv

Estimator = Callable[[Rollout], Rollout]
"""Fills in the advantages of a rollout."""


class RolloutCollector:
    """
    Collect rollouts for many tasks at once, in waves where there are more tasks than environments.

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
        :param hooks: functions to call meanwhile
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
            true_rewards: list[np.ndarray] = []
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
                true_rewards.append(step.true_rewards)
                cuts += truncations(number, step)
                if not hooks.on_step(step, number):
                    raise StopCollection
            cuts += [(number, int(i), pick(step.new_obs, int(i))) for i in np.flatnonzero(~step.dones)]
            ends[-1] = np.ones_like(ends[-1])
            arrays = {name: getattr(buffer, name) for name in ("observations", "actions", "log_probs", "rewards")}
            arrays["true_rewards"] = np.stack(true_rewards).astype(np.float32)
            rollout = assemble(
                arrays, buffer.episode_starts.astype(bool), np.stack(ends), cuts, len(wave_tasks), self.env
            )
            rollout = self.estimate(rollout)
            self._fill(buffer, rollout)
            hooks.on_end(rollout)
            rollouts.append(rollout)
        return concatenate(rollouts)

    @with_watched_workers
    def collect_episodes(
        self,
        tasks: Sequence[Task],
        params: Params,
        n_episodes: int,
        deterministic: bool = False,
        max_episode_steps: int | None = None,
    ) -> Rollout:
        r"""
        Play a number of whole episodes of every task, shared evenly by its environments.

        The statistics of a ``VecNormalize`` stay as they are, because these episodes are no training data. Each
        environment counts its own episodes, so that short ones are not favoured, and steps beyond its share are
        masked.

        :param tasks: one task per entry of the parameters' leading axis
        :param params: stacked parameters, each of shape (n_tasks, \*shape)
        :param n_episodes: episodes per task, at least 1
        :param deterministic: take the most probable action
        :param max_episode_steps: give up on an episode that is longer; if not given, on one that is longer than the
            environment's own time limit or, where it has none, than 10,000 steps
        :return: rollout of all tasks, with padding masked
        :raises ValueError: if an episode does not end within ``max_episode_steps``
        :raises FloatingPointError: for an observation or reward that is not finite
        """
        limit = time_limit(self.env, max_episode_steps)
        frozen = FrozenNormalizer(unwrap_vec_normalize(self.env))
        frozen.freeze()
        try:
            waves = self._waves(tasks, params)
            rollouts = [self._whole_episodes(*wave, n_episodes, deterministic, limit) for wave in waves]
        finally:
            frozen.release()
            if isinstance(self.env.unwrapped, BatchTaskVecEnv):
                self.env.unwrapped.report_diverged()
        return concatenate(rollouts)

    def _whole_episodes(
        self, tasks: Sequence[Task], params: Params, n_episodes: int, deterministic: bool, limit: int
    ) -> Rollout:
        """One wave of :meth:`collect_episodes`."""
        n_envs = self.env.num_envs
        quota = np.tile(shares(n_episodes, n_envs // len(tasks)), len(tasks))
        played, lengths = np.zeros(n_envs, dtype=int), np.zeros(n_envs, dtype=int)
        steps: list[Step] = []
        masks: list[np.ndarray] = []
        cuts: list[tuple[int, int, Any]] = []
        for number, step in enumerate(self._steps(tasks, params, deterministic)):
            counts = played < quota
            steps.append(step)
            masks.append(counts)
            cuts += [cut for cut in truncations(number, step) if counts[cut[1]]]
            played += step.dones & counts
            if (played >= quota).all():
                break
            lengths = np.where(step.dones, 0, lengths + 1)
            check_episode_lengths(np.where(counts, lengths, 0), limit, tasks)
        arrays = {
            "observations": stack_steps([step.obs for step in steps]),
            "actions": np.stack([step.actions for step in steps]),
            "log_probs": np.stack([step.log_probs.cpu().numpy() for step in steps]),
            "rewards": np.stack([step.rewards for step in steps]).astype(np.float32),
            "true_rewards": np.stack([step.true_rewards for step in steps]).astype(np.float32),
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
        """Set the tasks, reset, then act without end."""
        env, policy, wrapper = self.env, self.actor.policy, unwrap_vec_normalize(self.env)
        policy.set_training_mode(False)
        n_tasks = len(tasks)
        set_tasks(env, tasks, env.num_envs // n_tasks)
        env.seed(int(self.generator.integers(2**31 - env.num_envs)))
        noise = th.Generator(policy.device).manual_seed(int(self.generator.integers(2**63)))
        obs: Any = env.reset()
        check_finite("observation", obs if wrapper is None else wrapper.old_obs, tasks, 0)
        self.normalizer.observe()
        act = acting(self.actor, params, env.num_envs // n_tasks)
        episode_starts = np.ones(env.num_envs, dtype=bool)
        number = 0
        while True:
            with th.no_grad():
                chosen, log_probs = act(
                    by_task(obs_as_tensor(obs, policy.device), n_tasks), None if deterministic else noise
                )
            actions = chosen.flatten(0, 1).cpu().numpy()
            clipped = clip_actions(actions, env.action_space)
            new_obs, rewards, dones, infos = env.step(clipped)
            number += 1
            check_finite("observation", new_obs if wrapper is None else wrapper.old_obs, tasks, number)
            true = rewards if wrapper is None else wrapper.get_original_reward()
            check_finite("reward", true, tasks, number)
            self.normalizer.observe(dones)
            starts = episode_starts
            step = Step(obs, actions, clipped, log_probs.flatten(), starts, new_obs, rewards, dones, infos, true)
            check_final_observations(step, tasks, number)
            yield step
            obs, episode_starts = new_obs, dones

    @staticmethod
    def _fill(buffer: RolloutBuffer, rollout: Rollout) -> None:
        """Show the advantages in SB3's buffer, where callbacks look for them."""
        shape = buffer.advantages.shape
        buffer.advantages = rollout.advantages.transpose(0, 1).reshape(shape).float().cpu().numpy()
