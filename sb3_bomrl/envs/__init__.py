"""Task families, registered with Gymnasium under ``bomrl/``."""

from sb3_bomrl.envs.registry import ENV_IDS, register_envs

__all__ = ["ENV_IDS", "register_envs"]
