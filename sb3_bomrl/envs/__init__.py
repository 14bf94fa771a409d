"""Task families, registered with Gymnasium under ``bomrl/``."""

from typing import NamedTuple

import gymnasium as gym


class _Registration(NamedTuple):
    entry_point: str
    horizon: int


_ENVS = {
    "bomrl/HalfCheetahVel-v0": _Registration("sb3_bomrl.envs.locomotion:HalfCheetahVelEnv", 200),
    "bomrl/HalfCheetahDir-v0": _Registration("sb3_bomrl.envs.locomotion:HalfCheetahDirEnv", 200),
    "bomrl/AntVel-v0": _Registration("sb3_bomrl.envs.locomotion:AntVelEnv", 200),
    "bomrl/AntDir-v0": _Registration("sb3_bomrl.envs.locomotion:AntDirEnv", 200),
    "bomrl/Walker2dRandParams-v0": _Registration("sb3_bomrl.envs.rand_params:Walker2dRandParamsEnv", 200),
    "bomrl/HopperRandParams-v0": _Registration("sb3_bomrl.envs.rand_params:HopperRandParamsEnv", 200),
    "bomrl/HumanoidDir-v0": _Registration("sb3_bomrl.envs.humanoid:HumanoidDirEnv", 200),
    "bomrl/Navigation2D-v0": _Registration("sb3_bomrl.envs.navigation:Navigation2DEnv", 100),
    "bomrl/FrozenLakeHighVariance-v0": _Registration("sb3_bomrl.envs.frozen_lake:FrozenLakeHighVarianceEnv", 49),
    "bomrl/FrozenLakeLowVariance-v0": _Registration("sb3_bomrl.envs.frozen_lake:FrozenLakeLowVarianceEnv", 49),
}

ENV_IDS = tuple(_ENVS)
"""The ids of the package's environments."""


def register_envs() -> None:
    """Register every family with Gymnasium; calling it again changes nothing."""
    for env_id, (entry_point, horizon) in _ENVS.items():
        if env_id not in gym.registry:
            gym.register(env_id, entry_point=entry_point, max_episode_steps=horizon)
