"""Argument checks, and what their errors say."""

import numpy as np
import pytest

from sb3_bomrl.checks import check_choice, check_interval, check_non_negative, check_positive, check_range


@pytest.mark.parametrize("value", [1, np.int64(3), 2**70])
def test_whole_numbers_are_accepted(value):
    check_positive("n", value, integer=True)
    check_non_negative("n", value, integer=True)
    check_positive("n", value)


def test_ends_of_the_accepted_ranges():
    check_non_negative("n", 0, integer=True)
    check_non_negative("x", 0.0)
    check_positive("n", None, integer=True, optional=True)
    check_range("x", 1.0, 0.0, 1.0)
    check_choice("mode", None, (None, "ansi"))
    assert check_interval("goal_range", np.array([0, 2], dtype=np.float32)) == (0.0, 2.0)


@pytest.mark.parametrize("value", [0, -1, True, np.bool_(True), 1.5, "1", None, float("nan"), [1]])
def test_no_positive_integer(value):
    with pytest.raises(ValueError, match=r"^n must be an integer of at least 1, got "):
        check_positive("n", value, integer=True)


@pytest.mark.parametrize("value", [0.0, -1, True, "1", None, float("nan"), float("inf"), 1j])
def test_no_positive_number(value):
    with pytest.raises(ValueError, match=r"^x must be a finite number above 0, got "):
        check_positive("x", value)


@pytest.mark.parametrize("value", [-1, True, 0.5, "1"])
def test_no_seed(value):
    with pytest.raises(ValueError, match=rf"^seed must be an integer of at least 0, or None, got {value!r}$"):
        check_non_negative("seed", value, integer=True, optional=True)


@pytest.mark.parametrize("value", [3, (1.0,), (0.0, 1.0, 2.0), (1.0, 1.0), (0.0, float("inf")), ("a", "b"), None])
def test_no_interval(value):
    with pytest.raises(ValueError, match=r"goal_range must be two finite numbers \(low, high\) with low < high, got "):
        check_interval("goal_range", value)


def test_other_values_are_refused_by_name():
    with pytest.raises(ValueError, match=r"gamma must be a number in \[0, 1\], got 1.5"):
        check_range("gamma", 1.5, 0.0, 1.0)
    with pytest.raises(ValueError, match=r"mode must be one of \(None, 'ansi'\), got 'human'"):
        check_choice("mode", "human", (None, "ansi"))
