"""
Locomotion task families on Gymnasium's HalfCheetah-v5 and Ant-v5.

Older benchmarks define families of the same names differently: goal velocities up to 3 for HalfCheetahVel (ProMP,
PEARL), horizons of 100 (MAML) or 200, actions rescaled inside the environment. Results are comparable only within one
definition. ``goal_range`` and ``horizon`` select another one::

    gym.make("bomrl/HalfCheetahVel-v0", goal_range=(0.0, 3.0))
    gym.make("bomrl/HalfCheetahVel-v0", horizon=100)
    gym.make("bomrl/HalfCheetahVel-v0", horizon=400, max_episode_steps=400)  # longer than the registered limit

Actions are torques in [-1, 1] and are never rescaled here; ``gymnasium.wrappers.RescaleAction`` does that.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import utils
from gymnasium.envs.mujoco.ant_v5 import AntEnv
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv
from gymnasium.envs.mujoco.mujoco_env import MujocoEnv
from mujoco import MjData, MjModel, mjtWarning

from sb3_bomrl.envs.base import TaskEnv
from sb3_bomrl.envs.locomotion_family import LocomotionFamily, ant, half_cheetah
from sb3_bomrl.envs.mujoco_log import mujoco_warnings_to_log
from sb3_bomrl.envs.tasks import DirectionTasks, IntervalTasks, TaskDistribution, check_horizon, check_range
from sb3_bomrl.types import Task

BAD_STATE = tuple(
    int(kind) for kind in (mjtWarning.mjWARN_BADQPOS, mjtWarning.mjWARN_BADQVEL, mjtWarning.mjWARN_BADQACC)
)
"""The warnings with which MuJoCo reports, and resets, a diverged simulation."""


class LocomotionTaskEnv(TaskEnv, MujocoEnv, utils.EzPickle):
    """
    A Gymnasium MuJoCo environment whose observation, reward and termination come from a :class:`LocomotionFamily`.

    A simulation that diverges (MuJoCo's warning or a state that is not finite) ends its episode as truncated, with
    reward 0, the last good observation and ``info["diverged"]``.
    """

    family: LocomotionFamily
    horizon: int

    def _init_family(self, family: LocomotionFamily, distribution: TaskDistribution, horizon: int, task: Task) -> None:
        self.family = family
        self.horizon = check_horizon(horizon)
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
        position, velocity = self.family.initial_noise([self.np_random], self.model.nq, self.model.nv)
        self.set_state(self.init_qpos + position[0], self.init_qvel + velocity[0])
        return self._get_obs()

    def step(  # type: ignore[override]  # the reward is a float, as Gymnasium's API has it
        self, action: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float64], float, bool, bool, dict[str, Any]]:
        """Advance ``frame_skip`` physics steps."""
        last_obs, before = self._get_obs(), self._position()
        with mujoco_warnings_to_log():
            self.do_simulation(action, self.frame_skip)
        self._n_elapsed += 1
        if self.render_mode == "human":
            self.render()
        if self._has_diverged():
            return last_obs, 0.0, False, True, {"task": self._task, "diverged": True}
        x_velocity = (self._position()[:, 0] - before[:, 0]) / self.dt
        healthy = self.family.healthy(self.data.qpos[None])
        rewards = self.family.reward(x_velocity, np.asarray(action)[None], healthy, self._task_array)
        info = {"task": self._task, "x_position": float(self.data.qpos[0]), "x_velocity": float(x_velocity[0])}
        info.update((name, float(part[0])) for name, part in rewards.parts().items())
        truncated = self._n_elapsed >= self.horizon
        return self._get_obs(), float(rewards.total[0]), not bool(healthy[0]), truncated, info

    def _apply_task(self, task: Task) -> None:
        self._task_array = np.array([task], dtype=np.float64)

    def _get_obs(self) -> npt.NDArray[np.float64]:
        return self.family.observation(self.data.qpos[None], self.data.qvel[None])[0]

    def _position(self) -> npt.NDArray[np.float64]:
        return self.family.position(self.data.qpos[None], self.data.xpos[None])

    def _has_diverged(self) -> bool:
        if any(self.data.warning[kind].number for kind in BAD_STATE):
            return True
        return not (np.isfinite(self.data.qpos).all() and np.isfinite(self.data.qvel).all())

    def _get_reset_info(self) -> dict[str, Any]:
        return {"task": self._task, "x_position": float(self.data.qpos[0])}

    def __getstate__(self) -> dict[str, Any]:
        """Pickle as the constructor's arguments, the current task and the generators; the episode is not kept."""
        state = utils.EzPickle.__getstate__(self)
        return {**state, "task": self._task, "stream": self._task_stream, "np_random": self._np_random}

    def __setstate__(self, state: dict[str, Any]) -> None:
        utils.EzPickle.__setstate__(self, state)
        self._task_stream, self._np_random = state["stream"], state["np_random"]
        self.set_task(state["task"])


class _HalfCheetahTaskEnv(LocomotionTaskEnv, HalfCheetahEnv):
    """HalfCheetah-v5 with tasks; constructor of both families."""

    def __init__(
        self,
        family: LocomotionFamily,
        distribution: TaskDistribution,
        horizon: int,
        task: Task,
        render: dict[str, Any],
    ) -> None:
        self._init_family(family, distribution, horizon, task)
        HalfCheetahEnv.__init__(self, frame_skip=family.frame_skip, reset_noise_scale=family.reset_noise, **render)


class _AntTaskEnv(LocomotionTaskEnv, AntEnv):
    """Ant-v5 with tasks, without contact forces in the observation; constructor of both families."""

    def __init__(
        self,
        family: LocomotionFamily,
        distribution: TaskDistribution,
        horizon: int,
        task: Task,
        render: dict[str, Any],
    ) -> None:
        self._init_family(family, distribution, horizon, task)
        AntEnv.__init__(
            self,
            frame_skip=family.frame_skip,
            reset_noise_scale=family.reset_noise,
            include_cfrc_ext_in_observation=False,
            **render,
        )


class HalfCheetahVelEnv(_HalfCheetahTaskEnv):
    r"""
    Run at a goal velocity v: reward :math:`-|\dot x - v| - 0.05\|a\|^2`.

    :param goal_range: training tasks are v ~ U(low, high)
    :param horizon: steps per episode
    :param task: first goal velocity, ``None`` for the middle of the range
    :param render_kwargs: ``render_mode``, ``width``, ``height``, ``camera_id``, ``camera_name``
    """

    def __init__(
        self,
        goal_range: Sequence[float] = (0.0, 2.0),
        horizon: int = 200,
        task: float | None = None,
        **render_kwargs: Any,
    ) -> None:
        tasks = IntervalTasks(*check_range(goal_range))
        super().__init__(half_cheetah("velocity"), tasks, horizon, task, _check_render(render_kwargs))
        utils.EzPickle.__init__(self, goal_range, horizon, task, **render_kwargs)


class HalfCheetahDirEnv(_HalfCheetahTaskEnv):
    r"""
    Run in a direction d ∈ {−1, +1}: reward :math:`d\,\dot x - 0.05\|a\|^2`.

    :param horizon: steps per episode
    :param task: first direction, ``None`` for +1
    :param render_kwargs: ``render_mode``, ``width``, ``height``, ``camera_id``, ``camera_name``
    """

    def __init__(self, horizon: int = 200, task: int | None = None, **render_kwargs: Any) -> None:
        super().__init__(half_cheetah("direction"), DirectionTasks(), horizon, task, _check_render(render_kwargs))
        utils.EzPickle.__init__(self, horizon, task, **render_kwargs)


class AntVelEnv(_AntTaskEnv):
    r"""
    Walk at a goal velocity v: reward :math:`-|\dot x - v| + 0.05 + h - 0.005\|a\|^2`, h = 1 while healthy.

    The episode ends when the torso leaves the heights (0.2, 1).

    :param goal_range: training tasks are v ~ U(low, high)
    :param horizon: steps per episode
    :param task: first goal velocity, ``None`` for the middle of the range
    :param render_kwargs: ``render_mode``, ``width``, ``height``, ``camera_id``, ``camera_name``
    """

    def __init__(
        self,
        goal_range: Sequence[float] = (0.0, 3.0),
        horizon: int = 200,
        task: float | None = None,
        **render_kwargs: Any,
    ) -> None:
        tasks = IntervalTasks(*check_range(goal_range))
        super().__init__(ant("velocity"), tasks, horizon, task, _check_render(render_kwargs))
        utils.EzPickle.__init__(self, goal_range, horizon, task, **render_kwargs)


class AntDirEnv(_AntTaskEnv):
    r"""
    Walk in a direction d ∈ {−1, +1}: reward :math:`d\,\dot x + 0.05 + h - 0.005\|a\|^2`, h = 1 while healthy.

    The episode ends when the torso leaves the heights (0.2, 1).

    :param horizon: steps per episode
    :param task: first direction, ``None`` for +1
    :param render_kwargs: ``render_mode``, ``width``, ``height``, ``camera_id``, ``camera_name``
    """

    def __init__(self, horizon: int = 200, task: int | None = None, **render_kwargs: Any) -> None:
        super().__init__(ant("direction"), DirectionTasks(), horizon, task, _check_render(render_kwargs))
        utils.EzPickle.__init__(self, horizon, task, **render_kwargs)


def _check_render(kwargs: dict[str, Any]) -> dict[str, Any]:
    accepted = ("render_mode", "width", "height", "camera_id", "camera_name")
    for name in kwargs:
        if name not in accepted:
            raise TypeError(f"unexpected keyword argument {name!r}; besides the family's own, {accepted} are accepted")
    return kwargs
