"""A worker process of a ``SubprocVecEnv`` that dies: an error that names it, in time, and nothing left behind."""

import os
import signal
import time

import pytest
from stable_baselines3.common.vec_env import SubprocVecEnv, VecMonitor

from sb3_bomrl import evaluate_adaptation
from sb3_bomrl.rollout import workers as module
from tests.tiny import GoalEnv, make_model

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


class Dies(GoalEnv):
    """Ends its process in its 25th step, or raises there."""

    def __init__(self, number, way):
        super().__init__()
        self.number, self.way = number, way

    def step(self, action):
        if self.number == 1 and self.n_steps == 24:
            if self.way == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise SystemExit(3)
        return super().step(action)


def workers(way, start_method):
    env = SubprocVecEnv([lambda i=i: Dies(i, way) for i in range(4)], start_method=start_method)
    return VecMonitor(env)


@pytest.mark.parametrize(
    ("way", "start_method", "words"),
    [
        ("kill", "forkserver", r"environment 1 \(signal SIGKILL\)"),
        ("exit", "fork", r"environment 1 \(exit code 3"),
        ("kill", "fork", r"environment 1 \(signal SIGKILL\)"),
    ],
)
def test_a_worker_that_dies_is_named(way, start_method, words):
    env = workers(way, start_method)
    model = make_model(env)
    start = time.monotonic()
    with pytest.raises(RuntimeError, match=rf"alive, but that of {words}.* ended: the other workers were ended too"):
        model.learn(10_000)
    env.close()
    assert time.monotonic() - start < 30
    assert not any(process.is_alive() for process in env.unwrapped.processes)


def test_a_worker_that_died_before(tiny):
    env = workers("never", "fork")
    model = make_model(env)
    env.unwrapped.processes[2].kill()
    env.unwrapped.processes[2].join()
    with pytest.raises(RuntimeError, match=r"environment 2 \(signal SIGKILL\)"):
        evaluate_adaptation(model, env, [0.1], 0, 1, 4)
    with pytest.raises(OSError, match="closed"):
        model.learn(100)
    env.close()


def test_other_errors_pass(tiny):
    env = workers("never", "fork")
    try:
        model = make_model(env)

        def fail(*_):
            raise ConnectionError("of the callback")

        start = time.monotonic()
        with pytest.raises(ConnectionError, match="of the callback"):
            model.learn(100, callback=fail)
        assert time.monotonic() - start < 20
        model.learn(1)
    finally:
        env.close()


class Sleeps(GoalEnv):
    """Never closes."""

    def close(self):
        time.sleep(1000)


@pytest.mark.parametrize("state", ["alive", "dead", "asked", "sleeping"])
def test_closing_takes_no_longer_than_seconds(monkeypatch, state):
    monkeypatch.setattr(module, "_PATIENCE", 1.0)
    env = SubprocVecEnv([Sleeps if state == "sleeping" else GoalEnv] * 3, start_method="fork")
    monitored = VecMonitor(env)
    env.reset()
    if state == "asked":
        env.step_async(env.action_space.sample()[None].repeat(3, 0))
    if state in ("dead", "asked"):
        env.processes[1].kill()
        env.processes[1].join()
    start = time.monotonic()
    module.close_in_time(monitored)
    assert time.monotonic() - start < 30
    assert env.closed
    assert not any(process.is_alive() for process in env.processes)
    assert state != "alive" or all(process.exitcode == 0 for process in env.processes)
    module.close_in_time(env)
