"""Checkpoints between meta-iterations: killed runs go on bit for bit; signals and full disks."""

import errno
import io
import os
import random
import signal
import threading

import numpy as np
import pytest
import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EveryNTimesteps

from sb3_bomrl import BOMRL, ExactCheckpointCallback, load_checkpoint, make_meta_vec_env
from sb3_bomrl.saving import files
from sb3_bomrl.saving.checkpoints import checkpoints
from sb3_bomrl.saving.lock import LOCK_FILE
from tests import killed_runs

ITERATION = 2 * 10 * 4


def env():
    return make_meta_vec_env("bomrl/Navigation2D-v0", 4, env_kwargs={"horizon": 5})


def make(venv=None, **kwargs):
    settings = {"n_steps": 10, "meta_batch_size": 2, "n_inner_steps": 2, "seed": 0, "device": "cpu"}
    return BOMRL(
        "MlpPolicy", env() if venv is None else venv, policy_kwargs={"net_arch": [4]}, **{**settings, **kwargs}
    )


def equal(a, b):
    return all(th.equal(x, y) for x, y in zip(a.policy.parameters(), b.policy.parameters(), strict=True))


class Do(BaseCallback):
    """Call a function once, in the middle of a meta-iteration."""

    def __init__(self, function, at=ITERATION + 12):
        super().__init__()
        self.function, self.at = function, at

    def _on_step(self):
        if self.num_timesteps == self.at:
            self.function()
        return True


def test_killed_runs_end_as_the_one_that_was_left_alone(tmp_path):
    threads = th.get_num_threads()
    th.set_num_threads(1)  # forking after torch has started threads would hang
    try:
        killed_runs.kill_and_compare(tmp_path, 4, 4, random.Random(1))
    finally:
        th.set_num_threads(threads)
    (tmp_path / "other").mkdir()
    model = BOMRL.load(tmp_path / "straight" / "final.zip")
    model.task_generator.integers(2)
    model.save(tmp_path / "other" / "final.zip")
    assert killed_runs.compare(tmp_path / "straight", tmp_path / "other") == ["task_generator"]


@pytest.mark.parametrize("total", [4 * ITERATION, 4 * ITERATION + 40, 4 * ITERATION + 1])
@pytest.mark.parametrize("stopped_at", [1, 3])
def test_a_resumed_run_keeps_its_total(tmp_path, total, stopped_at):
    """Also where the budget ends between the phases of an iteration, which is then given up."""
    straight = make().learn(total)
    callback = ExactCheckpointCallback(tmp_path, save_freq=1)
    make().learn(
        total, callback=[callback, Do(lambda: os.kill(os.getpid(), signal.SIGINT), stopped_at * ITERATION - 4)]
    )
    assert callback.interrupted_by == signal.SIGINT
    model = load_checkpoint(BOMRL, tmp_path, env(), device="cpu")
    assert model.n_meta_iterations == stopped_at
    model.resume()
    assert (model.num_timesteps, model.n_meta_iterations) == (straight.num_timesteps, straight.n_meta_iterations)
    assert model.task_generator.bit_generator.state == straight.task_generator.bit_generator.state
    assert equal(model, straight)
    before = model.num_timesteps
    assert model.resume().num_timesteps == before


def test_environments_without_seeded_tasks_resume_too(tmp_path):
    import gymnasium as gym
    from gymnasium import spaces
    from stable_baselines3.common.vec_env import DummyVecEnv

    class Plain(gym.Env):
        observation_space, action_space = spaces.Box(-9.0, 9.0, (1,)), spaces.Box(-1.0, 1.0, (1,))

        def sample_tasks(self, n):
            return list(self.np_random.uniform(-1, 1, n))

        def set_task(self, task):
            self.task = task

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.t = 0
            return np.zeros(1, np.float32), {}

        def step(self, action):
            self.t += 1
            return np.zeros(1, np.float32), -abs(float(action[0]) - self.task), False, self.t == 5, {}

    def model():
        return make(DummyVecEnv([Plain] * 4))

    straight = model().learn(3 * ITERATION)
    first = model()
    first.learn(3 * ITERATION, callback=[ExactCheckpointCallback(tmp_path, 1), StopAt(2 * ITERATION + 20)])
    resumed = load_checkpoint(BOMRL, tmp_path, DummyVecEnv([Plain] * 4), device="cpu").resume()
    assert equal(straight, resumed)


class StopAt(BaseCallback):
    """Stop as a killed run does: in the middle."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def _on_step(self):
        return self.num_timesteps < self.at


def test_the_last_two_are_kept(tmp_path):
    make().learn(7 * ITERATION, callback=ExactCheckpointCallback(tmp_path, save_freq=2))
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint_00000004.zip", "checkpoint_00000006.zip"]
    assert len(list(tmp_path.glob("*.zip*"))) == 2


def test_saving_changes_nothing_and_works_inside_other_callbacks(tmp_path):
    nested = CallbackList([EveryNTimesteps(50, Do(lambda: None)), CallbackList([ExactCheckpointCallback(tmp_path, 1)])])
    assert equal(make().learn(2 * ITERATION, callback=nested), make().learn(2 * ITERATION))
    assert len(checkpoints(tmp_path)) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_the_iteration(tmp_path, capsys, number):
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    callback = ExactCheckpointCallback(tmp_path, save_freq=100)
    model = make().learn(100 * ITERATION, callback=[callback, Do(lambda: os.kill(os.getpid(), number))])
    assert model.n_meta_iterations == 2
    assert callback.interrupted_by == number
    out = capsys.readouterr().out
    assert f"{number.name}: finishing this meta-iteration" in out
    assert f"Saved {checkpoints(tmp_path)[0]}, at {2 * ITERATION} environment steps" in out
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_the_second_signal_stops_at_once(tmp_path):
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]

    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        make().learn(9 * ITERATION, callback=[ExactCheckpointCallback(tmp_path), Do(twice)])
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_a_signal_while_the_handlers_are_restored(tmp_path, monkeypatch):
    """As three SIGINTs at once: the handler runs within itself."""
    handlers, restore = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)], signal.signal

    def interrupted(number, handler):
        monkeypatch.setattr(signal, "signal", restore)
        os.kill(os.getpid(), signal.SIGTERM)
        return restore(number, handler)

    def interrupt():
        monkeypatch.setattr(signal, "signal", interrupted)
        os.kill(os.getpid(), signal.SIGINT)

    model = make().learn(9 * ITERATION, callback=[ExactCheckpointCallback(tmp_path), Do(interrupt)])
    assert model.n_meta_iterations == 2
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_what_a_killed_save_left_is_removed(tmp_path):
    (tmp_path / ".sb3_bomrl-0123456789abcdef.tmp").write_bytes(b"half a file")
    make().learn(ITERATION, callback=ExactCheckpointCallback(tmp_path, 1))
    assert sorted(path.name for path in tmp_path.iterdir()) == [LOCK_FILE, "checkpoint_00000001.zip"]


def test_handlers_come_back_after_an_error_and_without_checkpoints_nothing_is_caught(tmp_path):
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]

    def fail():
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        make().learn(9 * ITERATION, callback=[ExactCheckpointCallback(tmp_path), Do(fail)])
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    with pytest.raises(KeyboardInterrupt):
        make().learn(9 * ITERATION, callback=Do(lambda: os.kill(os.getpid(), signal.SIGINT)))


def test_other_threads_leave_the_signals_alone(tmp_path):
    handler, seen = signal.getsignal(signal.SIGINT), []
    look = Do(lambda: seen.append(signal.getsignal(signal.SIGINT)), at=12)
    thread = threading.Thread(
        target=lambda: make().learn(ITERATION, callback=[ExactCheckpointCallback(tmp_path, 1), look])
    )
    thread.start()
    thread.join()
    assert seen == [handler]
    assert len(checkpoints(tmp_path)) == 1


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    make().learn(2 * ITERATION, callback=ExactCheckpointCallback(tmp_path, 1))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    model = load_checkpoint(BOMRL, tmp_path, env(), device="cpu")

    class Full(io.FileIO):
        """A disk with room for 1000 bytes."""

        def write(self, data):
            super().write(bytes(data)[:1000])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    ordinary = files.Path.open
    monkeypatch.setattr(
        files.Path, "open", lambda path, mode, *args: Full(path, "w") if mode == "xb" else ordinary(path, mode, *args)
    )
    with pytest.warns(RuntimeWarning, match=r"could not be written \(.*No space left.*; the last one is .*_00000002"):
        model.learn(ITERATION, callback=ExactCheckpointCallback(tmp_path, 1), reset_num_timesteps=False)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    with pytest.raises(OSError, match="No space left"):
        model.save(tmp_path / "checkpoint_00000002.zip")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    monkeypatch.undo()
    model.learn(ITERATION, callback=ExactCheckpointCallback(tmp_path, 1), reset_num_timesteps=False)
    assert checkpoints(tmp_path)[-1].name == "checkpoint_00000004.zip"


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path):
    make().learn(3 * ITERATION, callback=ExactCheckpointCallback(tmp_path, 1))
    newest = checkpoints(tmp_path)[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    with pytest.warns(RuntimeWarning, match="is not a whole model file: renamed"):
        model = load_checkpoint(BOMRL, tmp_path, env(), device="cpu")
    assert model.n_meta_iterations == 2
    model.resume(callback=ExactCheckpointCallback(tmp_path, 1))
    assert equal(model, make().learn(3 * ITERATION))


def test_bad_input(tmp_path):
    assert load_checkpoint(BOMRL, tmp_path / "none", env()) is None
    with pytest.raises(ValueError, match="save_freq must be an integer of at least 1, got 0"):
        ExactCheckpointCallback(tmp_path, 0)
    make().learn(ITERATION, callback=ExactCheckpointCallback(tmp_path, 1))
    with pytest.raises(ValueError, match=r"folder must hold no checkpoint of another run, got .*_00000001\.zip"):
        make().learn(ITERATION, callback=ExactCheckpointCallback(tmp_path, 1))
    with pytest.raises(ValueError, match="needs a MetaAlgorithm, got PPO"):
        PPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8).learn(8, callback=ExactCheckpointCallback(tmp_path))
