"""Failures that last are warned of once."""

import warnings
from types import SimpleNamespace

import pytest
import torch as th

from sb3_bomrl.algorithms import watch
from sb3_bomrl.core.linear_solve import SolveInfo, SolveStatus


def gradient(n_negative: int):
    status = th.tensor([SolveStatus.NEGATIVE_CURVATURE] * n_negative + [SolveStatus.CONVERGED] * (5 - n_negative))
    return SimpleNamespace(solve=SolveInfo(th.zeros(5), th.zeros(5), status))


def data(before: float, after: float):
    phases = [SimpleNamespace(rollout=value) for value in (before, after)]
    return SimpleNamespace(supports=(phases[0],), query=phases[1])


@pytest.fixture(autouse=True)
def returns_are_numbers(monkeypatch):
    monkeypatch.setattr(watch, "episode_returns", lambda rollout: th.tensor([rollout, rollout], dtype=th.double))


def messages(look) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        look()
    return [str(warning.message) for warning in caught]


def test_no_minimum_in_most_tasks():
    def look(n_negative, n_iterations):
        eye = watch.FailureWatch()
        return lambda: [eye.see(data(0, 1), gradient(n_negative)) for _ in range(n_iterations)]

    assert messages(look(2, 50)) == messages(look(3, watch.PATIENCE - 1)) == []
    (message,) = messages(look(3, 50))
    assert "no minimum in most tasks of the last 10" in message
    assert "raise ridge_coef" in message


def test_adaptation_that_harms():
    eye = watch.FailureWatch()
    assert messages(lambda: [eye.see(data(5, 4 + 2 * (i % 9 == 8)), gradient(0)) for i in range(50)]) == []
    (message,) = messages(lambda: [eye.see(data(5, 4), gradient(0)) for _ in range(50)])
    assert "lowered the mean return in each of the last 10" in message


def test_a_training_run_is_watched(tiny, monkeypatch):
    seen = []
    monkeypatch.setattr(watch.FailureWatch, "see", lambda self, data, gradient: seen.append(data.n_tasks))
    model = tiny.model()
    model.learn(2 * tiny.iteration)
    assert seen == [model.meta_batch_size] * 2
