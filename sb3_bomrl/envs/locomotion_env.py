"""A Gymnasium MuJoCo environment that plays one task of a locomotion family."""

from copy import copy
from typing import Any

import mujoco
import numpy as np
import numpy.typing as npt
from gymnasium import utils
from gymnasium.envs.mujoco.mujoco_env import MujocoEnv
from mujoco import MjData, MjModel, mjtWarning

from sb3_bomrl.checks import check_positive
from sb3_bomrl.envs.base import TaskEnv
from sb3_bomrl.envs.locomotion_family import LocomotionFamily, State
from sb3_bomrl.envs.model_parameters import ModelParameters
from sb3_bomrl.envs.mujoco_log import mujoco_warnings_to_log
from sb3_bomrl.envs.tasks import TaskDistribution
from sb3_bomrl.types import Task

BAD_STATE = tuple(
    int(kind) for kind in (mjtWarning.mjWARN_BADQPOS, mjtWarning.mjWARN_BADQVEL, mjtWarning.mjWARN_BADQACC)
)
"""The warnings with which MuJoCo reports, and resets, a diverged simulation."""


class LocomotionTaskEnv(TaskEnv, MujocoEnv, utils.EzPickle):
    """
    A Gymnasium MuJoCo environment whose observation, reward and termination come from a :class:`LocomotionFamily`.

    A simulation that diverges (MuJoCo's warning or error, or a state that is not finite) ends its episode as
    truncated, with reward 0, the last good observation and ``info["diverged"]``.
    """

    family: LocomotionFamily
    horizon: int
    parameters: ModelParameters | None = None
    """The model's fields by task; ``None`` where a task is a number that the reward reads."""

    def _init_family(self, family: LocomotionFamily, distribution: TaskDistribution, horizon: int, task: Task) -> None:
        """Set family, horizon and task; where tasks change the model, call it after the simulation is made."""
        self.family = family
        check_positive("horizon", horizon, integer=True)
        self.horizon = int(horizon)
        self._init_tasks(distribution, task)
        self._n_elapsed = 0

    def _initialize_simulation(self) -> tuple[MjModel, MjData]:
        with mujoco_warnings_to_log():
            return super()._initialize_simulation()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float64], dict[str, Any]]:
        """Start an episode of the current task."""
        self._seed_tasks_on_reset(seed)
        self._n_elapsed = 0
        return super().reset(seed=seed, options=options)

    def reset_model(self) -> npt.NDArray[np.float64]:
        """Draw the initial state."""
        qpos, qvel = self.family.initial_state([self.np_random], self.init_qpos, self.init_qvel, self._lift)
        self.set_state(qpos[0], qvel[0])
        return self._get_obs()

    def step(  # type: ignore[override]  # the reward is a float, as Gymnasium's API has it
        self, action: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float64], float, bool, bool, dict[str, Any]]:
        """Advance ``frame_skip`` physics steps."""
        last_obs, before = self._get_obs(), self.family.position(self._state())
        failed = not self._simulate(action)
        self._n_elapsed += 1
        if self.render_mode == "human":
            self.render()
        if failed or self._has_diverged():
            return last_obs, 0.0, False, True, {"task": copy(self._task), "diverged": True}
        state = self._state()
        velocity = (self.family.position(state) - before) / self.dt
        healthy = self.family.healthy(state, self._lift)
        rewards = self.family.reward(velocity, state, np.asarray(action)[None], healthy, self._task_array)
        info = {"task": copy(self._task), "x_position": float(self.data.qpos[0]), "x_velocity": float(velocity[0, 0])}
        info.update((name, float(part[0])) for name, part in rewards.parts().items())
        truncated = self._n_elapsed >= self.horizon
        return self._get_obs(), float(rewards.total[0]), not bool(healthy[0]), truncated, info

    def _simulate(self, action: npt.NDArray[np.float32]) -> bool:
        """Step the physics, and return ``False`` where MuJoCo failed."""
        with mujoco_warnings_to_log():
            try:
                self.do_simulation(action, self.frame_skip)
            except mujoco.FatalError:
                return False
        return True

    def _apply_task(self, task: Task) -> None:
        if self.parameters is None:
            self._task_array, self._lift = np.array([task], dtype=np.float64), np.zeros(1)
            return
        values, self._lift = self.parameters.values([task])
        self._task_array = np.zeros(1)
        for name, value in values.items():
            getattr(self.model, name)[:] = value[0]
        mujoco.mj_setConst(self.model, mujoco.MjData(self.model))  # the episode's own data stay as they are

    def _state(self) -> State:
        """The fields that the family reads, as a batch of one."""
        return {name: getattr(self.data, name)[None] for name in self.family.fields}

    def _get_obs(self) -> npt.NDArray[np.float64]:
        return self.family.observation(self._state())[0]

    def _has_diverged(self) -> bool:
        if any(self.data.warning[kind].number for kind in BAD_STATE):
            return True
        return not (np.isfinite(self.data.qpos).all() and np.isfinite(self.data.qvel).all())

    def _get_reset_info(self) -> dict[str, Any]:
        return {"task": copy(self._task), "x_position": float(self.data.qpos[0])}

    def __getstate__(self) -> dict[str, Any]:
        """Pickle as the constructor's arguments, the current task and the generators; the episode is not kept."""
        state = utils.EzPickle.__getstate__(self)
        return {**state, "task": self._task, "stream": self._task_stream, "np_random": self._np_random}

    def __setstate__(self, state: dict[str, Any]) -> None:
        utils.EzPickle.__setstate__(self, state)
        self._task_stream, self._np_random = state["stream"], state["np_random"]
        self.set_task(state["task"])


def check_render(kwargs: dict[str, Any]) -> dict[str, Any]:
    """
    Require keyword arguments that only concern rendering, which Gymnasium's environment takes.

    :param kwargs: keyword arguments
    :return: the same
    :raises TypeError: for any that does not concern rendering
    """
    accepted = ("render_mode", "width", "height", "camera_id", "camera_name")
    for name in kwargs:
        if name not in accepted:
            raise TypeError(f"unexpected keyword argument {name!r}; besides the family's own, {accepted} are accepted")
    return kwargs
