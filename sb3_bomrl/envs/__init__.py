"""Task families, registered with Gymnasium under ``bomrl/``."""

from sb3_bomrl.envs.array_env import ArrayTaskEnv
from sb3_bomrl.envs.drawn_tasks import DrawnTasks
from sb3_bomrl.envs.registry import ENV_IDS, register_envs

__all__ = ["ENV_IDS", "ArrayTaskEnv", "DrawnTasks", "register_envs"]
