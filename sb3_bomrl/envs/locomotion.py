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

from gymnasium import utils
from gymnasium.envs.mujoco.ant_v5 import AntEnv
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv

from sb3_bomrl.envs.locomotion_env import LocomotionTaskEnv, check_render
from sb3_bomrl.envs.locomotion_family import LocomotionFamily, ant, half_cheetah
from sb3_bomrl.envs.tasks import DirectionTasks, IntervalTasks, TaskDistribution
from sb3_bomrl.types import Task


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
    """Ant-v5 with tasks; constructor of both families."""

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
            include_cfrc_ext_in_observation=family.contact_cost is not None,
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
        tasks = IntervalTasks(goal_range)
        super().__init__(half_cheetah("velocity"), tasks, horizon, task, check_render(render_kwargs))
        utils.EzPickle.__init__(self, goal_range, horizon, task, **render_kwargs)


class HalfCheetahDirEnv(_HalfCheetahTaskEnv):
    r"""
    Run in a direction d ∈ {−1, +1}: reward :math:`d\,\dot x - 0.05\|a\|^2`.

    :param horizon: steps per episode
    :param task: first direction, ``None`` for +1
    :param render_kwargs: ``render_mode``, ``width``, ``height``, ``camera_id``, ``camera_name``
    """

    def __init__(self, horizon: int = 200, task: int | None = None, **render_kwargs: Any) -> None:
        super().__init__(half_cheetah("direction"), DirectionTasks(), horizon, task, check_render(render_kwargs))
        utils.EzPickle.__init__(self, horizon, task, **render_kwargs)


class AntVelEnv(_AntTaskEnv):
    r"""
    Walk at a goal velocity v: reward :math:`-|\dot x - v| + 0.05 + h - 0.005\|a\|^2`, h = 1 while healthy.

    The episode ends when the torso leaves the heights [0.2, 1].

    With ``contact_forces`` the observation has 105 entries instead of 27: Ant-v5's contact forces on all bodies, each
    clipped to [-1, 1]. Their squares cost :math:`5\cdot10^{-4}` each, as in Ant-v5.

    :param goal_range: training tasks are v ~ U(low, high)
    :param horizon: steps per episode
    :param task: first goal velocity, ``None`` for the middle of the range
    :param contact_forces: whether contact forces are observed and cost reward
    :param render_kwargs: ``render_mode``, ``width``, ``height``, ``camera_id``, ``camera_name``
    """

    def __init__(
        self,
        goal_range: Sequence[float] = (0.0, 3.0),
        horizon: int = 200,
        task: float | None = None,
        contact_forces: bool = False,
        **render_kwargs: Any,
    ) -> None:
        tasks = IntervalTasks(goal_range)
        super().__init__(ant("velocity", contact_forces), tasks, horizon, task, check_render(render_kwargs))
        utils.EzPickle.__init__(self, goal_range, horizon, task, contact_forces, **render_kwargs)


class AntDirEnv(_AntTaskEnv):
    r"""
    Walk in a direction d ∈ {−1, +1}: reward :math:`d\,\dot x + 0.05 + h - 0.005\|a\|^2`, h = 1 while healthy.

    The episode ends when the torso leaves the heights [0.2, 1].

    With ``contact_forces`` the observation has 105 entries instead of 27: Ant-v5's contact forces on all bodies, each
    clipped to [-1, 1]. Their squares cost :math:`5\cdot10^{-4}` each, as in Ant-v5.

    :param horizon: steps per episode
    :param task: first direction, ``None`` for +1
    :param contact_forces: whether contact forces are observed and cost reward
    :param render_kwargs: ``render_mode``, ``width``, ``height``, ``camera_id``, ``camera_name``
    """

    def __init__(
        self, horizon: int = 200, task: int | None = None, contact_forces: bool = False, **render_kwargs: Any
    ) -> None:
        super().__init__(ant("direction", contact_forces), DirectionTasks(), horizon, task, check_render(render_kwargs))
        utils.EzPickle.__init__(self, horizon, task, contact_forces, **render_kwargs)
