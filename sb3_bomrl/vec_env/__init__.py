"""Vectorised environments that step all their rows at once."""

from typing import TYPE_CHECKING, Any

from sb3_bomrl.vec_env.array import ArrayTaskVecEnv
from sb3_bomrl.vec_env.base import ArrayStep, BatchTaskVecEnv
from sb3_bomrl.vec_env.frozen_lake import FrozenLakeVecEnv
from sb3_bomrl.vec_env.make import make_meta_vec_env
from sb3_bomrl.vec_env.navigation import NavigationVecEnv

if TYPE_CHECKING:
    from sb3_bomrl.vec_env.mujoco import MujocoTaskVecEnv

__all__ = [
    "ArrayStep",
    "ArrayTaskVecEnv",
    "BatchTaskVecEnv",
    "FrozenLakeVecEnv",
    "MujocoTaskVecEnv",
    "NavigationVecEnv",
    "make_meta_vec_env",
]


def __getattr__(name: str) -> Any:
    """Import what needs MuJoCo on first use."""
    if name == "MujocoTaskVecEnv":
        from sb3_bomrl.vec_env.mujoco import MujocoTaskVecEnv

        return MujocoTaskVecEnv
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
