"""A wrapper that makes the task a part of the observation."""

from collections.abc import Callable
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.spaces.utils import flatten, flatten_space

from sb3_bomrl.types import Task

Encode = Callable[[Task], Any]
"""Turns a task into numbers."""


class TaskObservationWrapper(gym.Wrapper):
    """
    Append the task to the observation, for oracles: policies that are told their task.

    The observation is the environment's own, flattened, followed by the task as numbers.

    :param env: environment with ``sample_tasks(n)`` and ``get_task()``
    :param encode: task -> numbers, always equally many; by default the task itself, which must be a number or an array
    :raises ValueError: if the environment has no tasks, or a task is not numbers
    """

    def __init__(self, env: gym.Env, encode: Encode | None = None) -> None:
        super().__init__(env)
        missing = [name for name in ("get_task", "sample_tasks") if not env.has_wrapper_attr(name)]
        if missing:
            raise ValueError(f"env {env} has no {', '.join(missing)}: see sb3_bomrl.TaskSamplerWrapper")
        self.encode = encode
        observed = flat_box("observation_space", env.observation_space)
        unbounded = np.full(len(self._numbers(env.get_wrapper_attr("sample_tasks")(1)[0])), np.inf)
        low, high = (
            np.concatenate([bound, sign * unbounded]) for bound, sign in ((observed.low, -1.0), (observed.high, 1.0))
        )
        self.observation_space = spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        obs, info = self.env.reset(seed=seed, options=options)
        return self._observation(obs), info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step the environment."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self._observation(obs), reward, terminated, truncated, info

    def _observation(self, obs: Any) -> npt.NDArray[np.float32]:
        own = np.asarray(flatten(self.env.observation_space, obs))
        return np.concatenate([own, self._numbers(self.env.get_wrapper_attr("get_task")())]).astype(np.float32)

    def _numbers(self, task: Task) -> npt.NDArray:
        try:
            return np.asarray(task if self.encode is None else self.encode(task), dtype=np.float64).ravel()
        except (TypeError, ValueError):
            raise ValueError(f"encode must make numbers of every task; without it task {task!r} is none") from None


def flat_box(name: str, space: spaces.Space) -> spaces.Box:
    """
    Return the space of flattened elements.

    :param name: name of the space in the error
    :param space: any space
    :raises ValueError: if its elements cannot be flattened to a ``Box``
    """
    flat = flatten_space(space) if space.is_np_flattenable else None
    if not isinstance(flat, spaces.Box):
        raise ValueError(f"env must have an {name} that can be flattened to a Box, got {space}")
    return flat
