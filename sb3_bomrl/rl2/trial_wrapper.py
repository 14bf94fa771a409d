"""Trials of several episodes of one task, for RL²."""

from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.spaces.utils import flatdim, flatten

from sb3_bomrl.checks import check_positive
from sb3_bomrl.envs.task_observation import flat_box
from sb3_bomrl.envs.wrappers import TaskSamplerWrapper


class TrialWrapper(TaskSamplerWrapper):
    """
    Join several episodes of one task into one trial, the episode of RL² (Duan et al., 2016, arXiv 1611.02779).

    Every reset starts a trial, of a new task unless one was set. Within it, an episode that ends is followed by the
    first step of the next one, without ``done``. The trial terminates with its last episode, even if that was
    truncated. A recurrent policy keeps its hidden state during a trial. To let it find out the task, the observation
    is the environment's own, flattened, followed by the previous action (one-hot where it is discrete), the previous
    reward, and 1 where the previous step ended an episode. All three are 0 at the start of a trial.

    Where an episode ends, the info has ``"trial_episode"``, a dictionary of its ``number`` in the trial, from 0, its
    undiscounted return ``r`` and its length ``l``.

    :param env: environment with ``sample_tasks(n)``, ``set_task(task)`` and ``get_task()``, whose episodes end
    :param episodes_per_trial: episodes of one task that make up a trial
    :param resample_on_reset: draw a new task at every trial
    :raises ValueError: if the environment has no tasks, a space cannot be flattened, or a number is none of the above
    """

    def __init__(self, env: gym.Env, episodes_per_trial: int = 2, resample_on_reset: bool = True) -> None:
        super().__init__(env, resample_on_reset=resample_on_reset)
        self.set_episodes_per_trial(episodes_per_trial)
        self.observation_space = trial_space(env.observation_space, env.action_space)
        self._start_episode(0)

    def set_episodes_per_trial(self, episodes_per_trial: int) -> None:
        """
        Change the length of the trials, from the next end of an episode on.

        :param episodes_per_trial: at least 1
        :raises ValueError: for anything else
        """
        check_positive("episodes_per_trial", episodes_per_trial, integer=True)
        self.episodes_per_trial = int(episodes_per_trial)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start a trial."""
        obs, info = super().reset(seed=seed, options=options)
        self._start_episode(0)
        return self._observation(obs, np.zeros(flatdim(self.env.action_space)), 0.0, False), info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step the episode; where it ends, start the next one, or end the trial."""
        obs, reward, terminated, truncated, info = super().step(action)
        ended, trial_ended = terminated or truncated, False
        self._return += float(reward)
        self._length += 1
        if ended:
            info = {**info, "trial_episode": {"number": self._number, "r": self._return, "l": self._length}}
            self._start_episode(self._number + 1)
            trial_ended = self._number >= self.episodes_per_trial
            if not trial_ended:
                obs, _ = self.env.reset()
        previous = np.asarray(flatten(self.env.action_space, action))
        return self._observation(obs, previous, float(reward), ended), reward, trial_ended, False, info

    def _start_episode(self, number: int) -> None:
        self._number, self._return, self._length = number, 0.0, 0

    def _observation(self, obs: Any, action: npt.NDArray, reward: float, ended: bool) -> npt.NDArray[np.float32]:
        own = np.asarray(flatten(self.env.observation_space, obs))
        return np.concatenate([own, action, [reward, float(ended)]]).astype(np.float32)


def trial_space(observation_space: spaces.Space, action_space: spaces.Space) -> spaces.Box:
    """
    Return the observation space of trials: observation, previous action, previous reward, end of an episode.

    :param observation_space: of the environment
    :param action_space: of the environment
    :return: all of it in a row
    :raises ValueError: if a space cannot be flattened
    """
    observed = flat_box("observation_space", observation_space)
    acted = flat_box("action_space", action_space)
    low = np.concatenate([observed.low, np.minimum(acted.low, 0.0), [-np.inf, 0.0]])
    high = np.concatenate([observed.high, np.maximum(acted.high, 0.0), [np.inf, 1.0]])
    return spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)
