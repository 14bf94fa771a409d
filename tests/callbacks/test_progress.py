"""ProgressLineCallback prints a line per interval, with the returns of the last meta-iteration."""

import re

import pytest
from stable_baselines3 import PPO

from sb3_bomrl import BOMRL, ExactCheckpointCallback, load_checkpoint, make_meta_vec_env
from sb3_bomrl.callbacks import ProgressLineCallback, progress
from tests.callbacks.test_checkpoint import StopAt

LINE = re.compile(r"([\d,]+) of ([\d,]+) steps \((\d+)%\), ([\d,]+) steps/s, (\d+:\d\d:\d\d) left(.*)")
ITERATION = 2 * 10 * 4


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """One second passes from each look at the clock to the next."""
    ticks = iter(range(10**6))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(ticks)))


def env():
    return make_meta_vec_env("bomrl/Navigation2D-v0", 4, env_kwargs={"horizon": 5})


def make(**kwargs):
    return BOMRL(
        "MlpPolicy", env(), n_steps=10, meta_batch_size=2, n_inner_steps=2, policy_kwargs={"net_arch": [4]}, seed=0,
        device="cpu", **kwargs,
    )  # fmt: skip


def lines(capsys):
    printed = capsys.readouterr().out.splitlines()
    return [match.groups() for match in map(LINE.fullmatch, printed) if match]


def test_lines_tell_steps_rate_time_left_and_returns(capsys):
    model = make()
    model.learn(2 * ITERATION, ProgressLineCallback(interval=15.0), log_interval=None)
    logged = model.logger.name_to_value
    first, second, last = lines(capsys)
    # four steps a second: the first meta-iteration takes 20 seconds, and the first line comes before its end
    assert first == ("60", "160", "38", "4", "0:00:25", "")
    assert second[:5] == ("120", "160", "75", "4", "0:00:10")
    assert re.fullmatch(r", return -\d+\.\d before and -\d+\.\d after adaptation", second[5])
    assert last[:3] == ("160", "160", "100")
    assert last[4] == "0:00:00"
    before, after = logged["meta/pre_adapt_return"], logged["meta/post_adapt_return"]
    assert last[5] == f", return {before:.1f} before and {after:.1f} after adaptation"


def test_a_resumed_run_is_timed_from_where_it_goes_on(capsys, tmp_path):
    make().learn(3 * ITERATION, [ExactCheckpointCallback(tmp_path, 1), StopAt(2 * ITERATION + 20)])
    load_checkpoint(BOMRL, tmp_path, env(), device="cpu").resume(ProgressLineCallback(interval=10.0))
    first = lines(capsys)[0]
    assert first[:5] == ("200", "240", "83", "4", "0:00:10")


def test_other_algorithms_have_no_adaptation(capsys):
    PPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, device="cpu").learn(16, ProgressLineCallback())
    assert lines(capsys) == [("16", "16", "100", "1", "0:00:00", "")]


def test_a_run_without_steps_prints_nothing(capsys):
    make().learn(0, ProgressLineCallback())
    assert lines(capsys) == []


@pytest.mark.parametrize("interval", [0, -1.0, float("nan")])
def test_the_interval_is_positive(interval):
    with pytest.raises(ValueError, match="interval must be a finite number above 0"):
        ProgressLineCallback(interval)
