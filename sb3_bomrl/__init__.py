"""Meta-reinforcement learning for Stable-Baselines3: BO-MRL with implicit hypergradients."""

from sb3_bomrl.algorithms.bomrl import BOMRL
from sb3_bomrl.algorithms.evaluation import evaluate_adaptation
from sb3_bomrl.algorithms.meta_algorithm import MetaAlgorithm
from sb3_bomrl.callbacks import AdaptationCallback
from sb3_bomrl.checkpoints import ExactCheckpointCallback, load_checkpoint
from sb3_bomrl.envs import register_envs
from sb3_bomrl.vec_env import make_meta_vec_env
from sb3_bomrl.wrappers import TaskSamplerWrapper

__version__ = "0.1.0"

__all__ = [
    "BOMRL",
    "AdaptationCallback",
    "ExactCheckpointCallback",
    "MetaAlgorithm",
    "TaskSamplerWrapper",
    "__version__",
    "evaluate_adaptation",
    "load_checkpoint",
    "make_meta_vec_env",
    "register_envs",
]

register_envs()
