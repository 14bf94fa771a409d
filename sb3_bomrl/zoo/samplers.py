"""The spaces that rl_zoo3's hyperparameter search draws from, one per algorithm."""

from collections.abc import Callable, Mapping
from typing import Any

Sampler = Callable[[Any, int, int, dict[str, Any]], dict[str, Any]]
"""(Optuna's trial, number of actions, number of environments, further arguments) -> keyword arguments."""

Range = tuple[float, float]
"""Bounds of a number, drawn uniformly on the logarithmic scale."""

SearchSpace = Mapping[str, Range | list[Any]]
"""Parameter of a trial -> its range, or the list of its values."""

_SHARED: SearchSpace = {"one_minus_gae_lambda": (0.005, 0.2)}
_TRUST_REGION: SearchSpace = {"max_kl": (3e-3, 5e-2)}
_GRADIENT_STEPS: SearchSpace = {"inner_lr": (1e-2, 1.0), "n_adaptation_steps": [1, 2, 3]}

SEARCH_SPACES: dict[str, SearchSpace] = {
    "bomrl": {
        **_SHARED,
        "reg_coef": (0.02, 2.0),
        "inner_lr": (5e-4, 2e-2),
        "n_inner_steps": [10, 25, 50],
        "hypergradient_damping": (1e-3, 0.3),
        **_TRUST_REGION,
    },
    "maml": {**_SHARED, **_GRADIENT_STEPS, "surrogate": ["linear", "log"], **_TRUST_REGION},
    "fomaml": {**_SHARED, **_GRADIENT_STEPS, **_TRUST_REGION},
    "emaml": {**_SHARED, **_GRADIENT_STEPS, "credit_coef": (1e-2, 1e1), **_TRUST_REGION},
    "promp": {
        **_SHARED,
        **_GRADIENT_STEPS,
        "learning_rate": (1e-4, 1e-2),
        "clip_range": (0.1, 0.5),
        "n_epochs": [3, 5, 10],
        "target_kl": (3e-3, 3e-2),
        "init_kl_coef": (1e-4, 1e-2),
    },
    "reptile": {**_SHARED, **_GRADIENT_STEPS, "n_adaptation_steps": [2, 3, 5], "interpolation": (0.1, 1.0)},
}
"""Search spaces by rl_zoo3's name of the algorithm."""


def convert(params: dict[str, Any]) -> dict[str, Any]:
    """
    Turn the parameters of a trial into keyword arguments.

    :param params: names and values as in a search space
    :return: keyword arguments of the algorithm
    """
    kept = dict(params)
    return {"gae_lambda": 1.0 - kept.pop("one_minus_gae_lambda"), **kept}


def sampler(space: SearchSpace) -> Sampler:
    """
    Return a function that draws the hyperparameters of a trial.

    :param space: the search space
    :return: function with rl_zoo3's arguments, all but the trial unused
    """

    def sample(trial: Any, n_actions: int, n_envs: int, additional_args: dict[str, Any]) -> dict[str, Any]:
        return convert({name: _suggest(trial, name, accepted) for name, accepted in space.items()})

    return sample


def _suggest(trial: Any, name: str, accepted: Range | list[Any]) -> Any:
    if isinstance(accepted, list):
        return trial.suggest_categorical(name, accepted)
    low, high = accepted
    return trial.suggest_float(name, low, high, log=True)
