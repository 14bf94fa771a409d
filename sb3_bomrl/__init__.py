"""Meta-reinforcement learning for Stable-Baselines3: BO-MRL with implicit hypergradients, and its baselines."""

from typing import TYPE_CHECKING, Any

from sb3_bomrl.algorithms.bomrl import BOMRL
from sb3_bomrl.algorithms.emaml import EMAML
from sb3_bomrl.algorithms.evaluation import evaluate_adaptation
from sb3_bomrl.algorithms.maml import FOMAML, MAML
from sb3_bomrl.algorithms.meta_algorithm import MetaAlgorithm
from sb3_bomrl.algorithms.promp import ProMP
from sb3_bomrl.algorithms.reptile import Reptile
from sb3_bomrl.callbacks.adaptation import AdaptationCallback
from sb3_bomrl.callbacks.checkpoint import ExactCheckpointCallback
from sb3_bomrl.envs import register_envs
from sb3_bomrl.envs.task_observation import TaskObservationWrapper
from sb3_bomrl.envs.wrappers import TaskSamplerWrapper
from sb3_bomrl.rl2.trial_evaluation import evaluate_trials, make_trial_vec_env
from sb3_bomrl.rl2.trial_wrapper import TrialWrapper
from sb3_bomrl.saving.checkpoints import load_checkpoint
from sb3_bomrl.vec_env import make_meta_vec_env

if TYPE_CHECKING:
    from sb3_bomrl.pretrained_models import pretrained as pretrained
    from sb3_bomrl.rl2.rl2 import RL2 as RL2

__version__ = "0.1.0"

__all__ = [
    "BOMRL",
    "EMAML",
    "FOMAML",
    "MAML",
    "AdaptationCallback",
    "ExactCheckpointCallback",
    "MetaAlgorithm",
    "ProMP",
    "Reptile",
    "TaskObservationWrapper",
    "TaskSamplerWrapper",
    "TrialWrapper",
    "__version__",
    "evaluate_adaptation",
    "evaluate_trials",
    "load_checkpoint",
    "make_meta_vec_env",
    "make_trial_vec_env",
    "pretrained",
    "register_envs",
]

register_envs()


def __getattr__(name: str) -> Any:
    """Import on first use what needs sb3-contrib or is rarely used."""
    if name == "pretrained":
        from sb3_bomrl.pretrained_models import pretrained

        return pretrained
    if name == "RL2":
        from sb3_bomrl.rl2.rl2 import RL2

        return RL2
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
