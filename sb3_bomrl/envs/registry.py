"""The table of the package's environments."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import gymnasium as gym

ARRAY_VEC_ENV = "sb3_bomrl.vec_env.array:ArrayTaskVecEnv"
"""What steps families derived from :class:`~sb3_bomrl.envs.array_env.ArrayTaskEnv`."""


class EnvEntry(NamedTuple):
    """
    One row of the table; classes are import strings, ``"module:name"``.

    :param entry_point: class of a single environment
    :param horizon: steps per episode
    :param backend: what steps many environments at once
    :param vec_env: class of many environments at once
    :param vec_env_kwargs: arguments of ``vec_env`` that make it this family
    """

    entry_point: str
    horizon: int
    backend: Literal["mujoco", "numpy"]
    vec_env: str
    vec_env_kwargs: Mapping[str, Any] = MappingProxyType({})


def _mujoco(entry_point: str) -> EnvEntry:
    return EnvEntry(f"sb3_bomrl.envs.{entry_point}", 200, "mujoco", "sb3_bomrl.vec_env.mujoco:MujocoTaskVecEnv")


def _frozen_lake(entry_point: str, family: str) -> EnvEntry:
    vec_env = "sb3_bomrl.vec_env.frozen_lake:FrozenLakeVecEnv"
    return EnvEntry(f"sb3_bomrl.envs.frozen_lake:{entry_point}", 49, "numpy", vec_env, {"family": family})


def _array(entry_point: str, horizon: int) -> EnvEntry:
    return EnvEntry(f"sb3_bomrl.envs.{entry_point}", horizon, "numpy", ARRAY_VEC_ENV)


ENVS: Mapping[str, EnvEntry] = {
    "bomrl/HalfCheetahVel-v0": _mujoco("locomotion:HalfCheetahVelEnv"),
    "bomrl/HalfCheetahDir-v0": _mujoco("locomotion:HalfCheetahDirEnv"),
    "bomrl/AntVel-v0": _mujoco("locomotion:AntVelEnv"),
    "bomrl/AntDir-v0": _mujoco("locomotion:AntDirEnv"),
    "bomrl/Walker2dRandParams-v0": _mujoco("rand_params:Walker2dRandParamsEnv"),
    "bomrl/HopperRandParams-v0": _mujoco("rand_params:HopperRandParamsEnv"),
    "bomrl/HumanoidDir-v0": _mujoco("humanoid:HumanoidDirEnv"),
    "bomrl/Navigation2D-v0": EnvEntry(
        "sb3_bomrl.envs.navigation:Navigation2DEnv", 100, "numpy", "sb3_bomrl.vec_env.navigation:NavigationVecEnv"
    ),
    "bomrl/FrozenLakeHighVariance-v0": _frozen_lake("FrozenLakeHighVarianceEnv", "high_variance"),
    "bomrl/FrozenLakeLowVariance-v0": _frozen_lake("FrozenLakeLowVarianceEnv", "low_variance"),
    "bomrl/CartPoleForce-v0": _array("classic_control:CartPoleForceEnv", 500),
    "bomrl/PendulumParams-v0": _array("classic_control:PendulumParamsEnv", 200),
    "bomrl/AcrobotTorque-v0": _array("classic_control:AcrobotTorqueEnv", 200),
    "bomrl/MountainCarPower-v0": _array("classic_control:MountainCarPowerEnv", 200),
    "bomrl/GridGoal-v0": _array("hidden_goals:GridGoalEnv", 20),
    "bomrl/ReachGoal-v0": _array("hidden_goals:ReachGoalEnv", 30),
    "bomrl/PointMassGoal-v0": _array("hidden_goals:PointMassGoalEnv", 50),
}
"""Every environment by its id."""

ENV_IDS = tuple(ENVS)
"""The ids of the package's environments."""


def register_envs() -> None:
    """Register every environment with Gymnasium; a second call changes nothing."""
    for env_id, entry in ENVS.items():
        if env_id not in gym.registry:
            gym.register(env_id, entry_point=entry.entry_point, max_episode_steps=entry.horizon)
