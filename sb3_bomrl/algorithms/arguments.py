"""Constructor arguments: handing them on, checks, old names of them, and those that do nothing."""

import inspect
import sys
import warnings
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np

from sb3_bomrl.checks import check_choice, check_positive, check_range, check_step_size
from sb3_bomrl.rollout.estimation import BASELINES

P = ParamSpec("P")
R = TypeVar("R")

NO_SDE = "use_sde must be False, got True: the noise of gSDE is no function of the parameters"


def arguments_of(variables: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return the arguments of a constructor, for ``super().__init__``.

    :param variables: ``locals()`` in the constructor's first statement
    :return: keyword arguments
    """
    return {name: value for name, value in variables.items() if name not in ("self", "__class__")}


def with_new_names(given: Mapping[str, Any], renamed: Mapping[str, str]) -> dict[str, Any]:
    """
    Replace names of version 0.1, with a ``FutureWarning``.

    :param given: values by name
    :param renamed: old name -> new name
    :return: values by new name
    :raises TypeError: if a value is given by both names
    """
    found = dict(given)
    for old in renamed.keys() & found.keys():
        new = renamed[old]
        if new in found:
            raise TypeError(f"{new} was also given by its old name {old}: leave that out")
        _warn_user(f"the argument {old} is called {new} now", FutureWarning)
        found[new] = found.pop(old)
    return found


def renamed_arguments(renamed: Mapping[str, str] | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """
    Let a constructor take arguments by their names of version 0.1, with a ``FutureWarning``.

    :param renamed: old name -> new name
    :return: decorator of the constructor
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            given = with_new_names(kwargs, renamed or {})
            if "use_sde" in given:
                if given.pop("use_sde"):
                    raise ValueError(NO_SDE)
                _warn_user("the argument use_sde does nothing: leave it out", FutureWarning)
            return function(*args, **given)

        return call

    return decorate


def warn_without_effect(instance: Any, reasons: Mapping[str, str]) -> None:
    """
    Warn of arguments that were given and do nothing with the others as they are.

    :param instance: object whose constructor has just run, with its arguments as attributes
    :param reasons: name of an argument without effect -> why
    """
    defaults: dict[str, Any] = {}
    for base in reversed(type(instance).__mro__):
        if "__init__" in vars(base):
            parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
            defaults |= {parameter.name: parameter.default for parameter in parameters}
    for name, reason in reasons.items():
        if name in defaults and getattr(instance, name) != defaults[name]:
            _warn_user(f"{name}={getattr(instance, name)!r} has no effect {reason}", UserWarning)


def _warn_user(message: str, category: type[Warning]) -> None:
    """Warn at the first line outside of the package."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_back.f_globals.get("__name__", "").startswith("sb3_bomrl."):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level + 1)


_COUNTS = (
    "n_steps",
    "meta_batch_size",
    "n_envs_per_task",
    "cg_max_steps",
    "n_critic_updates",
    "batch_size",
    "sub_sampling_factor",
    "n_rollout_threads",
)


def check_shared_arguments(model: Any) -> None:
    """
    Check the arguments that all meta-algorithms have.

    :param model: a :class:`~sb3_bomrl.MetaAlgorithm`
    :raises ValueError: that names the argument, its value and what is accepted
    """
    for name in _COUNTS:
        check_positive(name, getattr(model, name), integer=True)
    if model.tasks_per_chunk is not None:
        check_positive("tasks_per_chunk", model.tasks_per_chunk, integer=True)
    for name in model.scheduled:
        check_step_size(name, getattr(model, name))
    check_positive("max_grad_norm", model.max_grad_norm)
    check_range("gamma", model.gamma, 0.0, 1.0)
    check_range("gae_lambda", model.gae_lambda, 0.0, 1.0)
    check_range("cg_damping", model.cg_damping, 0.0, np.inf)
    check_choice("baseline", model.baseline, ("auto", *BASELINES))
    check_choice("outer_step", model.outer_step, model.outer_steps)
    if model.line_search and not (model.outer_step == "trpo" and model.supports_line_search()):
        raise ValueError(
            "line_search must be False, got True: it needs outer_step='trpo', and a meta-gradient that is the gradient "
            "of what it measures, MAML's or that of BO-MRL's hypergradient='implicit' or 'unrolled'"
        )


def shared_arguments_without_effect(model: Any) -> dict[str, str]:
    """
    Find arguments of all meta-algorithms that do nothing with the others as they are.

    :param model: a :class:`~sb3_bomrl.MetaAlgorithm`
    :return: name of an argument -> why it has no effect
    """
    reasons: dict[str, str] = {}
    if model.outer_step != "trpo":
        why = f"with outer_step={model.outer_step!r}"
        reasons |= dict.fromkeys(("max_kl", "cg_max_steps", "cg_damping", "sub_sampling_factor"), why)
    if model.resolved_baseline() != "value_net":
        why = "without a value network, which baseline='value_net' trains"
        reasons |= dict.fromkeys(("n_critic_updates", "batch_size"), why)
        if model.outer_step != "adam":
            reasons |= dict.fromkeys(("learning_rate", "max_grad_norm"), f"{why}, and without outer_step='adam'")
    return reasons
