"""Locomotion task family on Gymnasium's Humanoid-v5."""

from typing import Any

from gymnasium import utils
from gymnasium.envs.mujoco.humanoid_v5 import HumanoidEnv

from sb3_bomrl.envs.humanoid_family import humanoid
from sb3_bomrl.envs.locomotion_env import LocomotionTaskEnv, check_render
from sb3_bomrl.envs.tasks import AngleTasks


class HumanoidDirEnv(LocomotionTaskEnv, HumanoidEnv):
    r"""
    Walk in a direction θ: reward :math:`1.25\,(\dot x\cos\theta + \dot y\sin\theta) + 5\,h - 0.1\,\|a\|^2`, h = 1 while
    healthy.

    The velocity is that of the centre of mass. The episode ends when the torso leaves the heights (1, 2).

    With ``contact_forces`` the observation has 348 entries instead of 270: Humanoid-v5's contact forces. Their squares
    cost :math:`5\cdot10^{-7}` each, at most 10 in all, as in Humanoid-v5.

    :param horizon: steps per episode
    :param task: first direction in radians, ``None`` for 0, along x
    :param contact_forces: whether contact forces are observed and cost reward
    :param render_kwargs: ``render_mode``, ``width``, ``height``, ``camera_id``, ``camera_name``
    """

    def __init__(
        self, horizon: int = 200, task: float | None = None, contact_forces: bool = False, **render_kwargs: Any
    ) -> None:
        HumanoidEnv.__init__(self, include_cfrc_ext_in_observation=contact_forces, **check_render(render_kwargs))
        family = humanoid(tuple(self.model.body_mass.tolist()), contact_forces)
        self._init_family(family, AngleTasks(), horizon, task)
        utils.EzPickle.__init__(self, horizon, task, contact_forces, **render_kwargs)
