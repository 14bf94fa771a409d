"""Checks of arguments; their errors name the argument, the value and what is accepted."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence, Set
from numbers import Integral, Real
from typing import Any, SupportsFloat

import numpy as np

LARGEST_COUNT = 2**31 - 1
"""Of what is counted; torch, NumPy and the operating system take no more."""


def short(value: Any, longest: int = 80) -> str:
    """
    Return a value as text for an error.

    :param value: anything
    :param longest: number of characters
    :return: at most so many characters
    """
    return shortened(repr(value[: longest + 1] if isinstance(value, str) else value), longest)


def shortened(text: str, longest: int = 80) -> str:
    """
    Cut a text for an error.

    :param text: any text
    :param longest: number of characters
    :return: at most so many characters
    """
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def check_choice(name: str, value: Any, accepted: Sequence[Any]) -> None:
    """
    Require one of some values.

    :param name: the argument
    :param value: its value
    :param accepted: the accepted values
    :raises ValueError: otherwise
    """
    if not isinstance(value, Hashable) or value not in accepted:
        raise ValueError(f"{name} must be one of {tuple(accepted)}, got {value!r}")


def check_positive(name: str, value: Any, integer: bool = False, optional: bool = False) -> None:
    """
    Require a positive, finite number.

    :param name: the argument
    :param value: its value
    :param integer: require a whole number
    :param optional: accept ``None`` too
    :raises ValueError: otherwise
    """
    words = "an integer of at least 1" if integer else "a finite number above 0"
    _check_number(name, value, lambda number: number > 0, words, integer, optional)


def check_count(name: str, value: Any, largest: int = LARGEST_COUNT) -> None:
    """
    Require a number of things, at least one and not more than a computer can hold.

    :param name: the argument
    :param value: its value
    :param largest: the largest accepted number
    :raises ValueError: otherwise
    """
    check_positive(name, value, integer=True)
    if value > largest:
        raise ValueError(f"{name} must be at most {largest}, got {value!r}")


def check_non_negative(name: str, value: Any, integer: bool = False, optional: bool = False) -> None:
    """
    Require a finite number of at least 0.

    :param name: the argument
    :param value: its value
    :param integer: require a whole number
    :param optional: accept ``None`` too
    :raises ValueError: otherwise
    """
    words = f"{'an integer' if integer else 'a finite number'} of at least 0"
    _check_number(name, value, lambda number: number >= 0, words, integer, optional)


def _check_number(
    name: str, value: Any, accepts: Callable[[Any], bool], words: str, integer: bool, optional: bool
) -> None:
    if optional and value is None:
        return
    kind = Integral if integer else Real
    fits = isinstance(value, kind) and not isinstance(value, bool) and (integer or _is_finite(value))
    if not fits or not accepts(value):
        raise ValueError(f"{name} must be {words}{', or None' if optional else ''}, got {value!r}")


def _is_finite(value: Any) -> bool:
    try:
        return bool(np.isfinite(float(value)))
    except OverflowError:
        return False


def check_range(name: str, value: Any, low: float, high: float) -> None:
    """
    Require a number in a closed interval.

    :param name: the argument
    :param value: its value
    :param low: smallest accepted value
    :param high: largest accepted value
    :raises ValueError: otherwise
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not low <= value <= high:  # type: ignore[operator]
        raise ValueError(f"{name} must be a number in [{low:g}, {high:g}], got {value!r}")


def check_interval(name: str, value: Any) -> tuple[float, float]:
    """
    Require the two ends of an interval.

    :param name: the argument
    :param value: its value
    :return: (low, high)
    :raises ValueError: unless they are two finite numbers, the first one smaller
    """
    try:
        low, high = map(float, value)
        accepted = bool(np.isfinite([low, high]).all()) and low < high
    except (TypeError, ValueError):
        accepted = False
    if not accepted:
        raise ValueError(f"{name} must be two finite numbers (low, high) with low < high, got {value!r}")
    return low, high


def check_step_size(name: str, value: Any) -> None:
    """
    Require a positive, finite number, or a schedule of such.

    :param name: the argument
    :param value: number, or function of the remaining progress, 1 to 0
    :raises ValueError: otherwise
    """
    if not callable(value):
        check_positive(name, value)


def step_size(name: str, value: Any, progress_remaining: float) -> float:
    """
    Return the present value of a step size.

    :param name: the argument
    :param value: number, or function of the remaining progress
    :param progress_remaining: 1 at the start of training, 0 at its end
    :return: the number
    :raises ValueError: if a schedule gives no positive number
    """
    if not callable(value):
        return float(value)
    now = value(progress_remaining)
    if isinstance(now, str) or not isinstance(now, SupportsFloat) or not 0 < float(now) < np.inf:
        raise ValueError(
            f"{name} must be above 0, got {now} from {value} at remaining progress {progress_remaining:g}: "
            "use a schedule that ends above 0, or load the model with a number"
        )
    return float(now)


def task_list(name: str, tasks: Any, n_tasks: int | None = None) -> list[Any]:
    """
    Require tasks.

    :param name: where they come from
    :param tasks: sequence or array of tasks
    :param n_tasks: how many there must be; any number if not given
    :return: the tasks as a list
    :raises ValueError: unless they are as many tasks, none of which is ``None``
    """
    wanted = "tasks" if n_tasks is None else f"{n_tasks} tasks"
    if isinstance(tasks, str | bytes | Mapping | Set) or not isinstance(tasks, Iterable):
        raise ValueError(f"{name} must be a list of {wanted}, got {tasks!r}")
    listed = list(tasks)
    if n_tasks is not None and len(listed) != n_tasks:
        raise ValueError(f"{name} must be a list of {n_tasks} tasks, got {len(listed)}: {listed!r}")
    if any(task is None for task in listed):
        raise ValueError(f"{name} must be a list of {wanted} that are not None, got {listed!r}")
    return listed
