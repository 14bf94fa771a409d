"""rl_zoo3's scripts that show something: videos, and RL² through rl_zoo3's own RecurrentPPO."""

import importlib.util
import re
import shutil
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import yaml

pytest.importorskip("rl_zoo3")

from sb3_bomrl import RL2
from sb3_bomrl.envs.navigation import Navigation2DEnv
from sb3_bomrl.zoo import scripts
from sb3_bomrl.zoo.scripts import check_can_show

pytestmark = pytest.mark.filterwarnings("ignore")  # rl_zoo3 and what it imports
SEEN, HIDDEN = "SeenNavigation-v0", "bomrl/Navigation2D-v0"


class SeenNavigation(Navigation2DEnv):
    """Draws the point."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, render_mode=None, **kwargs):
        super().__init__(**kwargs)
        self.render_mode = render_mode

    def render(self):
        frame = np.zeros((64, 64, 3), np.uint8)
        x, y = np.clip(32 + 30 * self._position[0], 2, 61).astype(int)
        frame[y - 2 : y + 3, x - 2 : x + 3] = 255
        return frame


@pytest.fixture
def zoo_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(gym.registry, SEEN, gym.envs.registration.EnvSpec(SEEN, SeenNavigation, max_episode_steps=9))

    def run(*argv):
        monkeypatch.setattr(sys, "argv", ["sb3_bomrl.zoo", *argv])
        scripts.main()

    return run


def test_record_video_films_the_adapted_policy(zoo_run, capsys):
    pytest.importorskip("moviepy")
    imageio = pytest.importorskip("imageio.v2")
    common = ["--algo", "maml", "--env", SEEN, "-f", "logs"]
    tiny = ["n_envs:4", "meta_batch_size:2", "n_steps:9", "policy_kwargs:dict(net_arch=[8],log_std_init=-4.0)"]
    zoo_run("train", *common, "-n", "1", "--eval-freq", "-1", "--seed", "0", "-params", *tiny, "inner_lr:50.0")
    lengths = {}
    for task, n in (("(0.4, 0.4)", "8"), (None, "6")):
        adapting = [] if task is None else ["--task", task, "--adapt-episodes", "4"]
        zoo_run("record_video", *common, "-n", n, "-o", f"videos{n}", *adapting)
        (path,) = Path(f"videos{n}").glob("*.mp4")
        frames = imageio.mimread(path)
        assert np.asarray(frames[0]).max() > 200, "the point must be seen"
        assert not np.array_equal(frames[0], frames[-1]), "the point must move"
        lengths[n] = len(frames)
        assert (task is not None) == ("after 1 adaptation(s) of 4 episodes" in capsys.readouterr().out)
    assert lengths == {"8": 9, "6": 7}  # with the first frame


@pytest.mark.parametrize(
    ("script", "argv", "words"),
    [
        ("record_video", ["--env", HIDDEN], rf"--env must be able to render, but {HIDDEN} has the render modes \[\]"),
        ("record_video", ["--env", HIDDEN, "--no-render"], "--env must be able to render"),
        ("enjoy", ["--env", HIDDEN, "--task", "(0, 0)"], "render modes .*; --no-render plays without"),
        ("record_video", ["--env", "bomrl/FrozenLakeLowVariance-v0"], r"render modes \['ansi'\]"),
        ("record_training", ["--env", HIDDEN], "--env must be able to render"),
    ],
)
def test_what_cannot_be_shown_is_said_at_once(zoo_run, monkeypatch, script, argv, words):
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/ffmpeg")
    with pytest.raises(ValueError, match=words):
        zoo_run(script, "--algo", "maml", *argv)


def test_what_can_be_shown_is_let_through(zoo_run):
    for script, env in (
        ("enjoy", SEEN),
        ("record_video", SEEN),
        ("record_video", "CartPole-v1"),
        ("all_plots", HIDDEN),
    ):
        check_can_show(script, ["--env", env])
    check_can_show("enjoy", ["--env", HIDDEN, "--no-render"])
    check_can_show("enjoy", [])


def test_missing_programs_are_named(zoo_run, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(FileNotFoundError, match="record_training needs the program ffmpeg"):
        zoo_run("record_training", "--env", SEEN)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "moviepy" else find(name))
    with pytest.raises(ImportError, match=r"record_video needs moviepy.*`pip install 'sb3-bomrl\[zoo\]'`"):
        check_can_show("record_video", ["--env", SEEN])


def test_rl2_as_documented(zoo_run, capsys):
    """The configuration file of docs/zoo.md, on a tiny budget."""
    text = (Path(__file__).parents[2] / "docs" / "zoo.md").read_text()
    (config,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    Path("rl2.yml").write_text(config)
    documented = yaml.safe_load(config)["default"]
    assert documented["n_steps"] % (2 * gym.spec(HIDDEN).max_episode_steps) == 0, "whole trials"
    common = ["--algo", "ppo_lstm", "--env", HIDDEN, "-f", "logs"]
    tiny = ["n_envs:2", "n_steps:20", "batch_size:20", "policy_kwargs:dict(lstm_hidden_size=8,net_arch=[8])"]
    zoo_run("train", *common, "--conf-file", "rl2.yml", "-n", "80", "--eval-freq", "40", "--eval-episodes", "2",
            "--seed", "0", "--env-kwargs", "horizon:5", "-params", *tiny)  # fmt: skip
    run = Path("logs/ppo_lstm/bomrl-Navigation2D-v0_1")
    record = np.load(run / "evaluations.npz")
    assert record["ep_lengths"].tolist() == [[5, 5], [5, 5]]  # the last episode of each trial, seen by the monitor
    model = RL2.load(run / "bomrl-Navigation2D-v0.zip", env=None)
    assert model.observation_space.shape == (2 + 2 + 2,)
    capsys.readouterr()
    zoo_run("enjoy", *common, "-n", "20", "--no-render", "--task", "(0.4, 0.4)")
    out = capsys.readouterr().out
    assert "2 Episodes" in out, "two trials of two episodes of five steps"
    assert "adaptation" not in out
