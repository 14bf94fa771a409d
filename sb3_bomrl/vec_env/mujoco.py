"""Locomotion families on ``mujoco.batch.Batch``: all environments step at once on a pool of threads."""

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import mujoco
import numpy as np
import numpy.typing as npt
from mujoco.batch import Batch, SimulationError

from sb3_bomrl.checks import check_positive
from sb3_bomrl.envs.locomotion_env import BAD_STATE, LocomotionTaskEnv
from sb3_bomrl.envs.mujoco_log import mujoco_warnings_to_log
from sb3_bomrl.types import Task
from sb3_bomrl.vec_env.base import ArrayStep, BatchTaskVecEnv, Ids


class MujocoTaskVecEnv(BatchTaskVecEnv):
    """
    A batch of simulations of one model, bit for bit equal to as many single environments.

    Where a simulation diverges, its episode alone ends, as truncated, with reward 0 and ``info["diverged"]``, and
    ``n_diverged`` counts it.

    The batch holds threads, so it can neither be pickled nor used in a forked child: build it inside the worker.

    :param env: a single environment of the family; it is kept to describe and render the batch, not stepped
    :param n_envs: number of environments
    :param n_threads: physics threads, ``None`` for one per available CPU
    :raises ValueError: if ``n_envs`` or ``n_threads`` is not a positive integer
    """

    def __init__(self, env: LocomotionTaskEnv, n_envs: int, n_threads: int | None = None) -> None:
        check_positive("n_threads", n_threads, integer=True, optional=True)
        self._env = env
        self._family = env.family
        self.n_threads = _n_cpus() if n_threads is None else int(n_threads)
        super().__init__(
            n_envs,
            env.observation_space,
            env.action_space,
            env.task_distribution,
            env.horizon,
            env.render_mode,
            env.spec,
        )
        self.metadata = env.metadata
        self.set_tasks([env.get_task()], n_repeats=self.num_envs)

    def allocate_rows(self) -> None:
        """Make the simulations and bind their fields."""
        model, parameters, fields = self._env.model, self._env.parameters, self._family.fields
        n_threads, observes_forces = min(self.n_threads, self.num_envs), "cfrc_ext" in fields
        self._batch = Batch(model, self.num_envs, n_threads, persistent=observes_forces)
        # bound before the first forward(), so that they are as current, and as lagging, as in a single environment
        self._state = {name: self._batch.bind(name) for name in fields if name != "cfrc_ext"}
        self._qpos, self._qvel, self._ctrl = self._state["qpos"], self._state["qvel"], self._batch.bind("ctrl")
        self._forces = ContactForces(self._batch) if observes_forces else None
        if self._forces is not None:
            self._state["cfrc_ext"] = self._forces.values
        self._model_fields = {name: self._batch.expand(name) for name in (parameters.fields if parameters else ())}
        self._lift, self._task_array = np.zeros(self.num_envs), np.zeros(self.num_envs)
        self._obs = np.zeros((self.num_envs, *(self.observation_space.shape or ())))
        self._columns: dict[str, npt.NDArray] = {}

    def reset_rows(self, ids: Ids) -> npt.NDArray:
        """Draw initial states, each from its environment's own generator."""
        rngs = [self.views[i].np_random for i in ids]
        env = self._env
        qpos, qvel = self._family.initial_state(rngs, env.init_qpos, env.init_qvel, self._lift[ids])
        with mujoco_warnings_to_log():
            self._batch.reset(ids, stage=mujoco.mjtStage.mjSTAGE_NONE.value)
            self._qpos[ids], self._qvel[ids] = qpos, qvel
            self._batch.forward(ids)
        if self._forces is not None:
            self._forces.values[ids] = 0.0
        obs = self._family.observation({name: field[ids] for name, field in self._state.items()})
        self._obs[ids] = obs
        return obs

    def step_rows(self, actions: npt.NDArray) -> ArrayStep:
        """Step the physics, then observe and reward all rows together."""
        family, state, before = self._family, self._state, self._family.position(self._state)
        self._ctrl[:] = actions
        with mujoco_warnings_to_log(), suppress(SimulationError):  # its rows are in the batch's status
            self._batch.step(nstep=family.frame_skip)
        if self._forces is not None:
            self._forces.update()
        with np.errstate(invalid="ignore", over="ignore"):  # a diverged row may hold anything
            obs = family.observation(state)
            healthy = family.healthy(state, self._lift)
            velocity = (family.position(state) - before) / self._env.dt
            rewards = family.reward(velocity, state, actions, healthy, self._task_array)
        self._columns = {"x_position": self._qpos[:, 0], "x_velocity": velocity[:, 0], **rewards.parts()}
        total, terminated, diverged = rewards.total, ~healthy, self._find_diverged()
        if diverged is not None:
            obs[diverged] = self._obs[diverged]
            total[diverged] = 0.0
            terminated &= ~diverged
        self._obs[:] = obs
        return ArrayStep(obs, total, terminated, diverged)

    def _find_diverged(self) -> npt.NDArray[np.bool_] | None:
        """Rows that MuJoCo warned of or gave up, or whose state is not finite; ``None`` if there are none."""
        warned, failed = self._batch.warning[:, BAD_STATE, 1], self._batch.status
        if not (warned.any() or failed.any()) and np.isfinite(self._qpos).all() and np.isfinite(self._qvel).all():
            return None
        finite = np.isfinite(self._qpos).all(axis=1) & np.isfinite(self._qvel).all(axis=1)
        return warned.any(axis=1) | (failed != 0) | ~finite

    def apply_tasks(self, ids: Ids, tasks: Sequence[Task]) -> None:
        """Write goal velocities or directions, or the model's fields as the tasks change them."""
        if self._env.parameters is None:
            self._task_array[ids] = np.array(tasks)[:, None]
            return
        values, lift = self._env.parameters.values(list(tasks))
        for name, value in values.items():
            self._model_fields[name][ids] = value[:, None]
        self._lift[ids] = lift[:, None]
        self._batch.set_const(np.unique(ids))

    def info_columns(self) -> dict[str, npt.NDArray]:
        """Return the columns of the single environment's info."""
        return self._columns

    def reset_info(self, index: int) -> dict[str, Any]:
        """Return the single environment's info at a reset."""
        return {"x_position": float(self._qpos[index, 0])}

    def render_row(self, index: int) -> npt.NDArray[np.uint8]:
        """Render one simulation with the single environment's renderer."""
        self._env.set_task(self.get_task(index))
        self._env.set_state(self._qpos[index], self._qvel[index])
        return self._env.render()

    def __getstate__(self) -> dict[str, Any]:
        raise TypeError("MujocoTaskVecEnv holds threads and cannot be pickled: make it where it is used")

    def close(self) -> None:
        """Close the renderer and end the threads; nothing can be stepped afterwards."""
        super().close()
        if hasattr(self, "_batch"):
            self._env.close()
            # a view of the simulations keeps them and their threads alive, and an exception that interrupted a step may
            # hold the dictionary itself
            self._state.clear()
            self._columns, self._model_fields, self._forces = {}, {}, None
            del self._batch, self._qpos, self._qvel, self._ctrl


class ContactForces:
    """
    The contact forces on every body after the last substep, as Gymnasium computes them.

    They follow from contacts, which only a whole ``mjData`` has: the batch must be persistent, and the forces are
    computed row by row.

    :param batch: a persistent batch
    """

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._data = mujoco.MjData(batch.model)
        self.values = np.zeros((batch.nsim, *self._data.cfrc_ext.shape))

    def update(self) -> None:
        """Compute :attr:`values`, (n_envs, n_bodies, 6)."""
        for row, forces in enumerate(self.values):
            self._batch.get_data(row, self._data)
            mujoco.mj_rnePostConstraint(self._batch.model, self._data)
            forces[:] = self._data.cfrc_ext


def _n_cpus() -> int:
    """CPUs that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1
