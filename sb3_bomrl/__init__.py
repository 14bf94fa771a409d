"""Meta-reinforcement learning for Stable-Baselines3: BO-MRL with implicit hypergradients, and its baselines."""

from sb3_bomrl.algorithms.bomrl import BOMRL
from sb3_bomrl.algorithms.emaml import EMAML
from sb3_bomrl.algorithms.evaluation import evaluate_adaptation
from sb3_bomrl.algorithms.maml import FOMAML, MAML
from sb3_bomrl.algorithms.meta_algorithm import MetaAlgorithm
from sb3_bomrl.algorithms.promp import ProMP
from sb3_bomrl.algorithms.reptile import Reptile
from sb3_bomrl.callbacks import AdaptationCallback
from sb3_bomrl.envs import register_envs
from sb3_bomrl.vec_env import make_meta_vec_env
from sb3_bomrl.wrappers import TaskSamplerWrapper

__version__ = "0.1.0"

__all__ = [
    "BOMRL",
    "EMAML",
    "FOMAML",
    "MAML",
    "AdaptationCallback",
    "MetaAlgorithm",
    "ProMP",
    "Reptile",
    "TaskSamplerWrapper",
    "__version__",
    "evaluate_adaptation",
    "make_meta_vec_env",
    "register_envs",
]

register_envs()
