"""The algorithms in rl_zoo3's tables, and rl_zoo3's experiment manager with our evaluation."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stable_baselines3.common.utils import LinearSchedule

from sb3_bomrl.algorithms.bomrl import BOMRL
from sb3_bomrl.algorithms.emaml import EMAML
from sb3_bomrl.algorithms.maml import FOMAML, MAML
from sb3_bomrl.algorithms.meta_algorithm import MetaAlgorithm
from sb3_bomrl.algorithms.promp import ProMP
from sb3_bomrl.algorithms.reptile import Reptile
from sb3_bomrl.policies.extractors import NormalizedFlattenExtractor
from sb3_bomrl.zoo.callbacks import AdaptationTrialCallback, adaptation_eval_callback
from sb3_bomrl.zoo.samplers import SEARCH_SPACES, convert, sampler

REGISTRY: dict[str, type[MetaAlgorithm]] = {
    "bomrl": BOMRL,
    "maml": MAML,
    "fomaml": FOMAML,
    "emaml": EMAML,
    "promp": ProMP,
    "reptile": Reptile,
}
"""Algorithms by rl_zoo3's name for them; a configuration file of that name lies in ``zoo_configs``."""


def config_path(algo: str) -> Path:
    """
    :param algo: a name in :data:`REGISTRY`
    :return: its configuration file, in the installed package or the repository
    :raises FileNotFoundError: if there is none
    """
    package = Path(__file__).parents[1]
    for folder in (package / "zoo_configs", package.parent / "zoo_configs"):
        if (folder / f"{algo}.yml").is_file():
            return folder / f"{algo}.yml"
    raise FileNotFoundError(f"there is no zoo_configs/{algo}.yml: name one with --conf-file")


def register() -> None:
    """
    Put the algorithms into rl_zoo3's tables, in place; calling it again changes nothing.

    :raises ImportError: if rl_zoo3, or a package that its scripts need, is missing
    """
    _mend_hub()
    try:
        exp_manager = importlib.import_module("rl_zoo3.exp_manager")
        hyperparams_opt = importlib.import_module("rl_zoo3.hyperparams_opt")
        utils = importlib.import_module("rl_zoo3.utils")
    except ImportError as error:
        raise ImportError(f"{error}: run `pip install 'sb3-bomrl[zoo]'`") from error
    for name, algorithm in REGISTRY.items():
        utils.ALGOS[name] = algorithm
        hyperparams_opt.HYPERPARAMS_SAMPLER[name] = sampler(SEARCH_SPACES[name])
        hyperparams_opt.HYPERPARAMS_CONVERTER[name] = convert
    _extend(exp_manager)


def _extend(exp_manager: Any) -> None:
    """Teach rl_zoo3's experiment manager our configuration files, schedules and evaluation."""
    manager = exp_manager.ExperimentManager
    if hasattr(manager, "_knows_bomrl"):
        return
    manager._knows_bomrl = True
    exp_manager.NormalizedFlattenExtractor = NormalizedFlattenExtractor  # configuration files may name it
    make, preprocess = manager.__init__, manager._preprocess_schedules
    create_callbacks, objective = manager.create_callbacks, manager.objective

    def __init__(self: Any, args: Any, algo: str, *rest: Any, **kwargs: Any) -> None:
        if algo in REGISTRY and kwargs.get("config") is None:
            kwargs["config"] = str(config_path(algo))
        make(self, args, algo, *rest, **kwargs)

    def _preprocess_schedules(self: Any, hyperparams: dict[str, Any]) -> dict[str, Any]:
        if self.algo not in REGISTRY:
            return preprocess(hyperparams)
        return with_schedules(hyperparams, ("learning_rate", *REGISTRY[self.algo].scheduled))

    def _with(name: str, replacement: Any, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: Any, *args: Any) -> Any:
            if self.algo not in REGISTRY:
                return method(self, *args)
            original = getattr(exp_manager, name)
            setattr(exp_manager, name, replacement)
            try:
                return method(self, *args)
            finally:
                setattr(exp_manager, name, original)

        return call

    manager.__init__ = __init__
    manager._preprocess_schedules = _preprocess_schedules
    manager.create_callbacks = _with("EvalCallback", adaptation_eval_callback, create_callbacks)
    manager.objective = _with("TrialEvalCallback", AdaptationTrialCallback, objective)


def with_schedules(hyperparams: dict[str, Any], step_sizes: tuple[str, ...]) -> dict[str, Any]:
    """
    Turn ``lin_<start>`` into a schedule that falls from there to 0.

    :param hyperparams: as read from a configuration file
    :param step_sizes: which of them may be schedules
    :return: the same with schedules
    :raises ValueError: for any other text
    """
    out = dict(hyperparams)
    for name in step_sizes:
        value = out.get(name)
        if isinstance(value, str):
            kind, _, start = value.partition("_")
            try:
                if kind != "lin":
                    raise ValueError
                out[name] = LinearSchedule(float(start), 0.0, 1.0)
            except ValueError:
                raise ValueError(f"{name} must be a number or 'lin_<start>', got {value!r}") from None
    return out


def _mend_hub() -> None:
    """Newer versions of huggingface_sb3 have renamed a function that rl_zoo3's push_to_hub imports."""
    try:
        module: Any = importlib.import_module("huggingface_sb3.push_to_hub")
    except ImportError:
        return
    if not hasattr(module, "generate_metadata") and hasattr(module, "_generate_metadata"):
        module.generate_metadata = module._generate_metadata
