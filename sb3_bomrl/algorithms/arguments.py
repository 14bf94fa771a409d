"""Constructor arguments: handing them on, checks, old names of them, and those that do nothing."""

import os
import sys
import warnings
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch as th
from stable_baselines3.common.utils import get_device
from stable_baselines3.common.vec_env import VecEnv

from sb3_bomrl.algorithms.argument_types import annotations_of, check_types, parameters_of, plain
from sb3_bomrl.algorithms.outer import TRUST_REGIONS
from sb3_bomrl.algorithms.policy_arguments import check_policy_kwargs, plain_policy_kwargs
from sb3_bomrl.checks import (
    check_choice,
    check_count,
    check_non_negative,
    check_positive,
    check_range,
    check_step_size,
)
from sb3_bomrl.rollout.estimation import BASELINES
from sb3_bomrl.rollout.tasks import has_tasks

P = ParamSpec("P")
R = TypeVar("R")

_LARGEST_SINGLE = 3.4e38
"""The optimiser computes in single precision."""

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
    parameters = parameters_of(type(instance))
    for name, reason in reasons.items():
        if name in parameters and getattr(instance, name) != parameters[name].default:
            _warn_user(f"{name}={getattr(instance, name)!r} has no effect {reason}", UserWarning)


def _warn_user(message: str, category: type[Warning]) -> None:
    """Warn at the first line outside of the package."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_back.f_globals.get("__name__", "").startswith("sb3_bomrl."):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level + 1)


def warn_of_one_task(env: VecEnv) -> None:
    """
    Warn of an environment without tasks.

    :param env: training environment
    :raises ValueError: if it can sample tasks but has no ``set_task``
    """
    if not has_tasks(env):
        _warn_user(
            "env has no set_task(task) and sample_tasks(n), so that there is one task only, where meta-training needs "
            "several: see sb3_bomrl.TaskSamplerWrapper",
            UserWarning,
        )


def warn_of_small_budget(total_timesteps: int, iteration: int) -> None:
    """
    Warn of a budget that the first meta-iteration exceeds.

    :param total_timesteps: budget of ``learn``, in environment steps; 0 plays nothing
    :param iteration: environment steps of a meta-iteration
    """
    if 0 < total_timesteps < iteration:
        _warn_user(
            f"total_timesteps={total_timesteps:,} is less than one meta-iteration of {iteration:,} steps, which is "
            "played to its end",
            UserWarning,
        )


_COUNTS = (
    "n_steps",
    "meta_batch_size",
    "cg_max_steps",
    "n_critic_updates",
    "batch_size",
    "sub_sampling_factor",
    "_stats_window_size",
)

_MOST_THREADS = 1024
_ATTRIBUTES = {"stats_window_size": "_stats_window_size", "policy": "policy_class"}
"""Names of attributes that differ from those of their arguments."""


def check_construction(cls: type, **arguments: Any) -> None:
    """
    Check the arguments that the constructor itself uses, before :func:`check_shared_arguments`.

    :param cls: class of the model
    :param arguments: value by name
    :raises ValueError: that names the argument, its value and what is accepted
    """
    check_types(annotations_of(cls), arguments)
    seed, device = arguments["seed"], arguments["device"]
    if seed is not None and not 0 <= seed < 2**32:
        raise ValueError(f"seed must be an integer in [0, 2**32 - 1], or None, got {seed!r}")
    try:
        used = get_device(device)
        float(th.zeros(1, device=used))
        if device != "auto" and used.type != th.device(device).type:  # SB3 would go on with the CPU
            raise ValueError("CUDA is not available")
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise ValueError(
            f"device must be 'auto', 'cpu' or one that torch can use here, got {device!r}: {reason}"
        ) from None


def make_arguments_plain(model: Any) -> None:
    """
    Turn NumPy's scalars, arrays within ``policy_kwargs`` and paths into Python's own types, which load anywhere.

    :param model: a :class:`~sb3_bomrl.MetaAlgorithm`
    """
    for attribute in _attributes_of(type(model)).values():
        if attribute in vars(model):
            value = getattr(model, attribute)
            setattr(model, attribute, os.fspath(value) if isinstance(value, os.PathLike) else plain(value))
    model.policy_kwargs = plain_policy_kwargs(model.policy_class, model.policy_kwargs)


def _attributes_of(cls: type) -> dict[str, str]:
    """Argument -> the attribute that holds it, for all that have one."""
    without = ("env", "device", "_init_setup_model")
    return {name: _ATTRIBUTES.get(name, name) for name in annotations_of(cls) if name not in without}


def check_shared_arguments(model: Any) -> None:
    """
    Check the arguments that all meta-algorithms have.

    :param model: a :class:`~sb3_bomrl.MetaAlgorithm`
    :raises ValueError: that names the argument, its value and what is accepted
    """
    for name in _COUNTS:
        check_count(name.removeprefix("_"), getattr(model, name))
    check_count("n_rollout_threads", model.n_rollout_threads, largest=_MOST_THREADS)
    for name in ("n_envs_per_task", "tasks_per_chunk"):
        if getattr(model, name) is not None:
            check_count(name, getattr(model, name))
    check_non_negative("verbose", model.verbose, integer=True)
    if not callable(model.learning_rate):
        check_non_negative("learning_rate", model.learning_rate)
        check_range("learning_rate", model.learning_rate, 0.0, _LARGEST_SINGLE)
    for name in model.scheduled:
        value = getattr(model, name)
        if not (isinstance(value, str) and value == "auto"):  # where it is no choice, the types below refuse it
            check_step_size(name, value)
    check_positive("max_grad_norm", model.max_grad_norm)
    check_range("gamma", model.gamma, 0.0, 1.0)
    check_range("gae_lambda", model.gae_lambda, 0.0, 1.0)
    check_non_negative("cg_damping", model.cg_damping)
    check_choice("baseline", model.baseline, ("auto", *BASELINES))
    check_choice("outer_step", model.outer_step, model.outer_steps)
    check_choice("trust_region", model.trust_region, TRUST_REGIONS)
    attributes = _attributes_of(type(model)).items()
    check_types(annotations_of(type(model)), {n: getattr(model, a) for n, a in attributes if a in vars(model)})
    check_policy_kwargs(model.policy_class, model.policy_kwargs)
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
        reasons |= dict.fromkeys(("trust_region", "max_kl", "cg_max_steps", "cg_damping", "sub_sampling_factor"), why)
    if model.resolved_baseline() != "value_net":
        why = "without a value network, which baseline='value_net' trains"
        reasons |= dict.fromkeys(("n_critic_updates", "batch_size"), why)
        if model.outer_step != "adam":
            reasons |= dict.fromkeys(("learning_rate", "max_grad_norm"), f"{why}, and without outer_step='adam'")
    return reasons
