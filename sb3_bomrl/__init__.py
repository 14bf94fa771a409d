"""Meta-reinforcement learning for Stable-Baselines3: BO-MRL with implicit hypergradients."""

from sb3_bomrl.envs import register_envs
from sb3_bomrl.vec_env import make_meta_vec_env
from sb3_bomrl.wrappers import TaskSamplerWrapper

__version__ = "0.1.0"

__all__ = ["TaskSamplerWrapper", "__version__", "make_meta_vec_env", "register_envs"]

register_envs()
