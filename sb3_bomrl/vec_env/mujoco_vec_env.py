"""Locomotion families on ``mujoco.batch.Batch``: all environments step at once on a pool of threads."""

import os
from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np
import numpy.typing as npt
from mujoco.batch import Batch

from sb3_bomrl.envs.locomotion import BAD_STATE, LocomotionTaskEnv
from sb3_bomrl.envs.locomotion_family import Array
from sb3_bomrl.envs.mujoco_log import mujoco_warnings_to_log
from sb3_bomrl.types import Task
from sb3_bomrl.vec_env.base import ArrayStep, BatchTaskVecEnv, Ids


class MujocoTaskVecEnv(BatchTaskVecEnv):
    """
    Many simulations of one model, bit for bit what as many single environments compute.

    A simulation that diverges is reset alone: its episode ends as truncated with reward 0 and ``info["diverged"]``,
    and ``n_diverged`` counts it.

    The batch holds threads, so it can neither be pickled nor used in a forked child: build it inside the worker.

    :param env: a single environment of the family; it is kept to describe and render the batch, not stepped
    :param n_envs: number of environments
    :param n_threads: physics threads, ``None`` for one per available CPU
    :raises ValueError: if ``n_envs`` or ``n_threads`` is not a positive integer
    """

    def __init__(self, env: LocomotionTaskEnv, n_envs: int, n_threads: int | None = None) -> None:
        if n_threads is None:
            n_threads = _n_cpus()
        if isinstance(n_threads, bool) or not isinstance(n_threads, (int, np.integer)) or n_threads < 1:
            raise ValueError(f"n_threads must be an integer of at least 1, or None for one per CPU, got {n_threads!r}")
        self._env = env
        self._family = env.family
        self.n_threads = int(n_threads)
        super().__init__(
            n_envs,
            env.observation_space,
            env.action_space,
            env.task_distribution,
            env.horizon,
            env.render_mode,
            env.spec,
        )
        self.set_tasks([env.get_task()] * self.num_envs)

    def allocate_rows(self) -> None:
        """Make the simulations and bind what is read from them."""
        self._batch = Batch(self._env.model, self.num_envs, min(self.n_threads, self.num_envs))
        self._qpos, self._qvel = self._batch.bind("qpos"), self._batch.bind("qvel")
        self._ctrl = self._batch.bind("ctrl")
        # bound before the first forward(), so that it is as current, and as lagging, as in a single environment
        self._xpos = None if self._family.root_body is None else self._batch.bind("xpos")
        self._obs = np.zeros((self.num_envs, *(self.observation_space.shape or ())))
        self._task_array = np.zeros(self.num_envs)
        self._columns: dict[str, npt.NDArray] = {}

    def reset_rows(self, ids: Ids) -> npt.NDArray:
        """Draw initial states, each from its environment's own generator."""
        rngs = [self.views[i].np_random for i in ids]
        model = self._batch.model
        position, velocity = self._family.initial_noise(rngs, model.nq, model.nv)
        with mujoco_warnings_to_log():
            self._batch.reset(ids, stage=mujoco.mjtStage.mjSTAGE_NONE.value)
            self._qpos[ids] = self._env.init_qpos + position
            self._qvel[ids] = self._env.init_qvel + velocity
            self._batch.forward(ids)
        obs = self._family.observation(self._qpos[ids], self._qvel[ids])
        self._obs[ids] = obs
        return obs

    def step_rows(self, actions: npt.NDArray) -> ArrayStep:
        """Step the physics, then observe and reward all rows together."""
        family, before = self._family, self._family.position(self._qpos, self._xpos)
        self._ctrl[:] = actions
        with mujoco_warnings_to_log():
            self._batch.step(nstep=family.frame_skip)
        obs = family.observation(self._qpos, self._qvel)
        healthy = family.healthy(self._qpos)
        with np.errstate(invalid="ignore", over="ignore"):  # a diverged row may hold anything
            x_velocity = (family.position(self._qpos, self._xpos)[:, 0] - before[:, 0]) / self._env.dt
            rewards = family.reward(x_velocity, actions, healthy, self._task_array)
        self._columns = {"x_position": self._qpos[:, 0], "x_velocity": x_velocity, **rewards.parts()}
        total, terminated, diverged = rewards.total, ~healthy, self._find_diverged(obs)
        if diverged is not None:
            obs[diverged] = self._obs[diverged]
            total[diverged] = 0.0
            terminated &= ~diverged
        self._obs[:] = obs
        return ArrayStep(obs, total, terminated, diverged)

    def _find_diverged(self, obs: Array) -> npt.NDArray[np.bool_] | None:
        """
        :return: the rows that MuJoCo warned of or whose state is not finite, ``None`` if all are well
        """
        warned = self._batch.warning[:, BAD_STATE, 1]
        if not warned.any() and np.isfinite(obs).all() and np.isfinite(self._qpos).all():
            return None
        return warned.any(axis=1) | ~np.isfinite(obs).all(axis=1) | ~np.isfinite(self._qpos).all(axis=1)

    def apply_tasks(self, ids: Ids, tasks: Sequence[Task]) -> None:
        """Tasks are numbers here: goal velocities or directions."""
        self._task_array[ids] = tasks

    def info_columns(self) -> dict[str, npt.NDArray]:
        """The single environment's info."""
        return self._columns

    def reset_info(self, index: int) -> dict[str, Any]:
        """The single environment's info at a reset."""
        return {"x_position": float(self._qpos[index, 0])}

    def render_row(self, index: int) -> npt.NDArray[np.uint8]:
        """Render one simulation with the single environment's renderer."""
        self._env.set_state(self._qpos[index], self._qvel[index])
        return self._env.render()

    def close(self) -> None:
        """Close the renderer and end the threads; nothing can be stepped afterwards."""
        if hasattr(self, "_batch"):
            self._env.close()
            self._columns = {}  # which also holds a view of the state
            del self._batch, self._qpos, self._qvel, self._ctrl, self._xpos


def _n_cpus() -> int:
    """CPUs that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1
