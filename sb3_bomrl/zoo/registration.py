"""The algorithms of this package in rl_zoo3's tables."""

import importlib
from typing import Any

from sb3_bomrl.algorithms.registry import REGISTRY
from sb3_bomrl.policies.extractors import NormalizedFlattenExtractor
from sb3_bomrl.zoo.samplers import SEARCH_SPACES, convert, sampler


def register() -> None:
    """
    Put the algorithms into rl_zoo3's tables; calling it again changes nothing.

    :raises ImportError: if rl_zoo3, or a package that its scripts need, is missing
    """
    _mend_hub()
    try:
        exp_manager: Any = importlib.import_module("rl_zoo3.exp_manager")
        hyperparams_opt = importlib.import_module("rl_zoo3.hyperparams_opt")
        utils = importlib.import_module("rl_zoo3.utils")
        ours = importlib.import_module("sb3_bomrl.zoo.experiment_manager")
    except ImportError as error:
        raise ImportError(f"{error}: run `pip install 'sb3-bomrl[zoo]'`") from error
    for name, algorithm in REGISTRY.items():
        utils.ALGOS[name] = algorithm
        hyperparams_opt.HYPERPARAMS_SAMPLER[name] = sampler(SEARCH_SPACES[name])
        hyperparams_opt.HYPERPARAMS_CONVERTER[name] = convert
    exp_manager.NormalizedFlattenExtractor = NormalizedFlattenExtractor  # configuration files may name it
    exp_manager.ExperimentManager = ours.MetaExperimentManager


def _mend_hub() -> None:
    """Give huggingface_sb3 the function that rl_zoo3's push_to_hub imports by an older name."""
    try:
        module: Any = importlib.import_module("huggingface_sb3.push_to_hub")
    except ImportError:
        return
    if not hasattr(module, "generate_metadata") and hasattr(module, "_generate_metadata"):
        module.generate_metadata = module._generate_metadata
