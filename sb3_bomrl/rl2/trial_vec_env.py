"""Trials of several episodes of one task, in an environment that is stepped as a batch."""

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.spaces.utils import flatdim
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from sb3_bomrl.checks import check_positive
from sb3_bomrl.rl2.trial_wrapper import TrialWrapper, trial_space
from sb3_bomrl.types import map_observations
from sb3_bomrl.vec_env.base import BatchTaskVecEnv, Ids


class TrialVecEnv(VecEnvWrapper):
    """
    Join several episodes into one trial, as :class:`~sb3_bomrl.rl2.trial_wrapper.TrialWrapper` does, for a whole batch.

    ``env_method`` offers the wrapper's methods: ``set_task``, which pins an environment's task, ``resume_sampling`` and
    ``set_episodes_per_trial``.

    :param venv: a :class:`~sb3_bomrl.vec_env.base.BatchTaskVecEnv`, or a wrapper of one that leaves observations alone
    :param episodes_per_trial: episodes of one task that make up a trial
    :raises ValueError: if ``venv`` is anything else, or ``episodes_per_trial`` is no positive integer
    """

    def __init__(self, venv: VecEnv, episodes_per_trial: int = 2) -> None:
        batch = venv.unwrapped
        if not isinstance(batch, BatchTaskVecEnv):
            raise ValueError(f"venv must be a BatchTaskVecEnv, got {venv}: use TrialWrapper in each environment")
        check_positive("episodes_per_trial", episodes_per_trial, integer=True)
        # get_attr reads these two in the base class's constructor
        self._n_episodes = np.full(venv.num_envs, episodes_per_trial)
        self._draws_tasks = np.ones(venv.num_envs, dtype=bool)
        super().__init__(venv, trial_space(venv.observation_space, venv.action_space))
        self._batch = batch
        batch.before_resets.append(self._end_episodes)
        self._numbers = np.zeros(self.num_envs, dtype=int)
        self._returns, self._lengths = np.zeros(self.num_envs), np.zeros(self.num_envs, dtype=int)
        self._taken = np.zeros((self.num_envs, *(venv.action_space.shape or ())))

    def reset(self) -> npt.NDArray[np.float32]:
        """Start a trial everywhere."""
        obs = self.venv.reset()
        if self._draws_tasks.any():  # from the generators that this reset has seeded, for the reset that counts
            self._draw_tasks(np.arange(self.num_envs))
            obs = self.venv.reset()
        for counter in (self._numbers, self._returns, self._lengths):
            counter[:] = 0
        n_actions = flatdim(self.venv.action_space)
        return self._observations(obs, np.zeros((self.num_envs, n_actions)), np.zeros((self.num_envs, 2)))

    def step_async(self, actions: npt.NDArray) -> None:
        """Take the actions of the next step, and keep them for its observation."""
        self._taken = np.array(actions)
        self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """Step every environment; a trial ends with its last episode."""
        obs, rewards, ended, infos = self.venv.step_wait()
        self._returns += rewards
        self._lengths += 1
        taken = _flatten(self.venv.action_space, self._taken)
        told = np.stack([rewards, ended], axis=1)
        observations = self._observations(obs, taken, told)
        dones = ended & (self._numbers >= self._n_episodes)
        for i in np.flatnonzero(ended):
            episode = {"number": int(self._numbers[i]) - 1, "r": float(self._returns[i]), "l": int(self._lengths[i])}
            last = infos[i].pop("terminal_observation")
            infos[i] |= {"trial_episode": episode, "TimeLimit.truncated": False}
            if dones[i]:
                own = _flatten(self.venv.observation_space, map_observations(lambda x: np.asarray(x)[None], last))
                infos[i]["terminal_observation"] = np.concatenate([own[0], taken[i], told[i]]).astype(np.float32)
        self._returns[ended], self._lengths[ended], self._numbers[dones] = 0.0, 0, 0
        observations[dones, -told.shape[1] - taken.shape[1] :] = 0.0
        return observations, rewards, dones, infos

    def _end_episodes(self, ids: Ids) -> None:
        """Count the episodes that ended, and draw the tasks of the trials that start next."""
        self._numbers[ids] += 1
        self._draw_tasks(ids[self._numbers[ids] >= self._n_episodes[ids]])

    def _draw_tasks(self, ids: Ids) -> None:
        drawing = ids[self._draws_tasks[ids]]
        if drawing.size:
            self._batch.set_tasks([self._batch.views[i].sample_tasks(1)[0] for i in drawing], indices=drawing)

    def _observations(self, obs: Any, actions: npt.NDArray, told: npt.NDArray) -> npt.NDArray[np.float32]:
        """Own observations, previous actions, previous rewards and ends."""
        own = _flatten(self.venv.observation_space, obs)
        return np.concatenate([own, actions, told], axis=1).astype(np.float32)

    def env_method(self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list:
        """Call a method of the environments, those of ``TrialWrapper`` among them."""
        chosen = list(self._get_indices(indices))
        if method_name == "set_episodes_per_trial":
            self._set_episodes_per_trial(chosen, *method_args, **kwargs)
            return [None] * len(chosen)
        if method_name == "resume_sampling":
            self._draws_tasks[chosen] = True
            return [None] * len(chosen)
        if method_name == "set_task":
            self._draws_tasks[chosen] = False
        return self.venv.env_method(method_name, *method_args, indices=indices, **kwargs)

    def _set_episodes_per_trial(self, indices: list[int], episodes_per_trial: int) -> None:
        check_positive("episodes_per_trial", episodes_per_trial, integer=True)
        self._n_episodes[indices] = episodes_per_trial

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Read an attribute of the environments."""
        own = {"episodes_per_trial": self._n_episodes, "resample_on_reset": self._draws_tasks}
        if attr_name in own:
            return own[attr_name][list(self._get_indices(indices))].tolist()
        return self.venv.get_attr(attr_name, indices)

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """Answer as if every environment were in a ``TrialWrapper``."""
        if wrapper_class is TrialWrapper:
            return [True for _ in self._get_indices(indices)]
        return self.venv.env_is_wrapped(wrapper_class, indices)

    def close(self) -> None:
        """Close the batch."""
        self._batch.before_resets.remove(self._end_episodes)
        self.venv.close()


def _flatten(space: spaces.Space, values: Any) -> npt.NDArray:
    """A batch of elements of a space as rows of numbers: one-hot where discrete, part by part of a ``Dict``."""
    if isinstance(space, spaces.Dict):
        return np.concatenate([_flatten(part, values[key]) for key, part in space.items()], axis=1)
    if isinstance(space, spaces.Discrete):
        return np.eye(int(space.n))[values.ravel() - int(space.start)]
    return values.reshape(len(values), -1)
