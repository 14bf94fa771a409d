"""Checks of arguments, with errors that name the argument, the value and what is accepted."""

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np


def check_choice(name: str, value: Any, accepted: Sequence[str]) -> None:
    """
    Require one of some names.

    :param name: the argument
    :param value: what was given
    :param accepted: what is accepted
    :raises ValueError: otherwise
    """
    if value not in accepted:
        raise ValueError(f"{name} must be one of {tuple(accepted)}, got {value!r}")


def check_positive(name: str, value: Any, integer: bool = False) -> None:
    """
    Require a positive, finite number.

    :param name: the argument
    :param value: what was given
    :param integer: require a whole number
    :raises ValueError: otherwise
    """
    kind, words = (Integral, "an integer of at least 1") if integer else (Real, "a finite number above 0")
    if isinstance(value, bool) or not isinstance(value, kind) or not np.isfinite(float(value)) or value <= 0:
        raise ValueError(f"{name} must be {words}, got {value!r}")


def check_range(name: str, value: Any, low: float, high: float) -> None:
    """
    Require a number in a closed interval.

    :param name: the argument
    :param value: what was given
    :param low: smallest accepted value
    :param high: largest accepted value
    :raises ValueError: otherwise
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not low <= float(value) <= high:
        raise ValueError(f"{name} must be a number in [{low:g}, {high:g}], got {value!r}")


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
    A step size as it is now.

    :param name: the argument
    :param value: number, or function of the remaining progress
    :param progress_remaining: 1 at the start of training, 0 at its end
    :return: the number
    :raises ValueError: if a schedule gives no positive number
    """
    if not callable(value):
        return float(value)
    now = float(value(progress_remaining))
    if not (np.isfinite(now) and now > 0):
        raise ValueError(
            f"{name} must be above 0, got {now} from {value} at remaining progress {progress_remaining:g}: "
            "use a schedule that ends above 0, or load the model with a number"
        )
    return now
