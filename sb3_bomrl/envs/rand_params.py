r"""
Families whose task is the model: Gymnasium's Walker2d-v5 and Hopper-v5 with other masses, inertias, damping, friction.

A task is a dictionary of multipliers of the model's fields, one per entry, and each multiplier is :math:`b^u` with
:math:`u \sim U(-3, 3)` on its own:

=================  =======================  ===  =================================
key                one per                  b    range with ``log_scale_limit=3``
=================  =======================  ===  =================================
``body_mass``      body                     1.5  0.296 to 3.375
``body_inertia``   body and principal axis  1.5  0.296 to 3.375
``dof_damping``    degree of freedom        1.3  0.455 to 2.197
``geom_friction``  geom and coefficient     1.5  0.296 to 3.375
``segment_length`` body, only if asked for  1.1  0.751 to 1.331
=================  =======================  ===  =================================

Entries of the world's body and of undamped degrees of freedom have no effect.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from gymnasium import utils
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv
from gymnasium.envs.mujoco.walker2d_v5 import Walker2dEnv

from sb3_bomrl.envs.locomotion_env import LocomotionTaskEnv, check_render
from sb3_bomrl.envs.model_parameters import ModelParameters
from sb3_bomrl.envs.model_tasks import RAND_PARAMS, ModelTasks, check_rand_params
from sb3_bomrl.envs.planar_family import PlanarFamily, hopper, walker2d


class _RandParamsEnv(LocomotionTaskEnv):
    """Constructor of both families."""

    def __init__(
        self,
        base: type[Any],
        family: PlanarFamily,
        log_scale_limit: float,
        horizon: int,
        task: Mapping[str, Any] | None,
        rand_params: Sequence[str],
        render: dict[str, Any],
    ) -> None:
        names = check_rand_params(rand_params)
        base.__init__(self, frame_skip=family.frame_skip, reset_noise_scale=family.reset_noise, **check_render(render))
        shapes = {name: _shape(self.model, name) for name in names}
        self.parameters = ModelParameters(self.fullpath, names)
        self._init_family(family, ModelTasks(shapes, log_scale_limit), horizon, task)
        utils.EzPickle.__init__(self, log_scale_limit, horizon, task, names, **render)


def _shape(model: Any, name: str) -> tuple[int, ...]:
    return (model.nbody,) if name == "segment_length" else getattr(model, name).shape


class Walker2dRandParamsEnv(_RandParamsEnv, Walker2dEnv):
    r"""
    Walk forward with a body whose model is the task: reward :math:`\dot x + h - 0.001\|a\|^2`, h = 1 while healthy.

    The episode ends when the torso's height leaves (0.8, 2) or its angle (−1, 1). With ``segment_length`` the walker
    starts as high above the ground as with limbs of the usual length, and the range of heights moves along.

    :param log_scale_limit: largest absolute exponent of a multiplier
    :param horizon: steps per episode
    :param task: first task, ``None`` for the model as it is; what it leaves out is 1, a single number counts for all
    :param rand_params: what tasks change, of ``body_mass``, ``body_inertia``, ``dof_damping``, ``geom_friction`` and
        ``segment_length``
    :param render_kwargs: ``render_mode``, ``width``, ``height``, ``camera_id``, ``camera_name``
    """

    def __init__(
        self,
        log_scale_limit: float = 3.0,
        horizon: int = 200,
        task: Mapping[str, Any] | None = None,
        rand_params: Sequence[str] = RAND_PARAMS,
        **render_kwargs: Any,
    ) -> None:
        super().__init__(Walker2dEnv, walker2d(), log_scale_limit, horizon, task, rand_params, render_kwargs)


class HopperRandParamsEnv(_RandParamsEnv, HopperEnv):
    r"""
    Hop forward with a body whose model is the task: reward :math:`\dot x + h - 0.001\|a\|^2`, h = 1 while healthy.

    The episode ends when the torso's height falls to 0.7, its angle leaves (−0.2, 0.2) or any other coordinate
    (−100, 100). With ``segment_length`` the hopper starts as high above the ground as with limbs of the usual length,
    and the height limit moves along.

    :param log_scale_limit: largest absolute exponent of a multiplier
    :param horizon: steps per episode
    :param task: first task, ``None`` for the model as it is; what it leaves out is 1, a single number counts for all
    :param rand_params: what tasks change, of ``body_mass``, ``body_inertia``, ``dof_damping``, ``geom_friction`` and
        ``segment_length``
    :param render_kwargs: ``render_mode``, ``width``, ``height``, ``camera_id``, ``camera_name``
    """

    def __init__(
        self,
        log_scale_limit: float = 3.0,
        horizon: int = 200,
        task: Mapping[str, Any] | None = None,
        rand_params: Sequence[str] = RAND_PARAMS,
        **render_kwargs: Any,
    ) -> None:
        super().__init__(HopperEnv, hopper(), log_scale_limit, horizon, task, rand_params, render_kwargs)
