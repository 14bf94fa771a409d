"""The command line, as a user calls it."""

import csv
import json
import os
import re
import signal
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("typer")

from typer.testing import CliRunner

from sb3_bomrl import BOMRL
from sb3_bomrl.cli import app as cli
from sb3_bomrl.saving.checkpoints import checkpoints
from sb3_bomrl.zoo import play

ENV = "bomrl/Navigation2D-v0"
TINY = ["-P", "n_steps=10", "-P", "meta_batch_size=2", "-P", "n_envs_per_task=2"]
TINY_BOMRL, TINY_OTHER = ([*TINY, "-P", f"{name}=2"] for name in ("n_inner_steps", "n_adaptation_steps"))


def call(*argv):
    return CliRunner().invoke(cli.app, [str(part) for part in argv], catch_exceptions=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "nav"
    done = call("train", ENV, *TINY_BOMRL, "-n", 240, "-o", folder)
    assert done.exit_code == 0, done.output
    assert "240 of 240 steps (100%)" in done.output, "no terminal, so lines of progress"
    return folder


def test_train_writes_a_run(run):
    assert BOMRL.load_safely(run / "model.zip").num_timesteps == 240
    assert json.loads((run / "run.json").read_text())["env"] == ENV
    with pytest.raises(ValueError, match=r"output must be a new folder, got .*--resume"):
        call("train", ENV, "-o", run)


def test_adapt_saves_the_adapted_model(run, tmp_path):
    done = call("adapt", run, "--task", "(0.4, -0.1)", "--episodes", 2, "--save", tmp_path / "adapted.zip")
    assert "before adaptation" in done.output
    assert "after 1 adaptation(s)" in done.output
    BOMRL.load_safely(tmp_path / "adapted.zip")


def test_evaluate_prints_and_writes(run, tmp_path):
    done = call("evaluate", run / "model.zip", "--episodes", 1, "--steps", 1, "--csv", tmp_path / "curve.csv")
    assert done.output.count("\n") == 27  # a head, 25 tasks, a mean
    rows = list(csv.DictReader((tmp_path / "curve.csv").read_text().splitlines()))
    assert len(rows) == 50
    mean = sum(float(row["mean_return"]) for row in rows if row["adaptation_steps"] == "1") / 25
    assert float(done.output.split()[-1]) == pytest.approx(mean, abs=0.06)


def test_plot(run, tmp_path):
    call("plot", run, "-o", tmp_path / "returns.png")
    assert (tmp_path / "returns.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("name", "start"), [("a.gif", b"GIF"), ("a.mp4", b"\x00\x00\x00")])
def test_video_shows_both_policies_side_by_side(run, tmp_path, monkeypatch, name, start):
    imageio = pytest.importorskip("imageio.v2")
    pytest.importorskip("imageio_ffmpeg")
    played = []

    def frames(self, model, task, seed):
        played.append((model.policy, task))
        return [np.full((64, 32, 3), 60 * len(played) + 30 * t, np.uint8) for t in range(2 + len(played))]

    with pytest.raises(ValueError, match=r"env must be able to render, but bomrl/Navigation2D-v0"):
        call("video", run, "--task", "(0.4, -0.1)")
    monkeypatch.setattr(play.gym, "make", lambda env_id: SimpleNamespace(metadata={"render_modes": ["rgb_array"]}))
    monkeypatch.setattr(cli.models.LoadedModel, "_frames", frames)
    done = call("video", run, "--task", "(0.4, -0.1)", "--episodes", 2, "-o", tmp_path / name)
    assert done.exit_code == 0, done.output
    assert (tmp_path / name).read_bytes().startswith(start)
    if name == "a.gif":
        video = imageio.mimread(tmp_path / name)
        assert len(video) == 4
        assert video[0].shape[:2] == (64, 64)
    assert played[0][0] is not played[1][0]
    assert played[0][1] == (0.4, -0.1)


def test_an_interrupted_run_is_resumed(run, tmp_path, monkeypatch):
    original = BOMRL._meta_iteration

    def interrupted(self, run, must_finish):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(self, run, must_finish)

    monkeypatch.setattr(BOMRL, "_meta_iteration", interrupted)
    done = call("train", ENV, *TINY_BOMRL, "-n", 240, "-o", tmp_path / "nav")
    assert done.exit_code == 128 + signal.SIGTERM
    assert "--resume" in done.output
    assert len(checkpoints(tmp_path / "nav" / "checkpoints")) == 1
    monkeypatch.undo()
    with pytest.raises(ValueError, match="leave -P out"):
        call("train", ENV, "-P", "gamma=0.5", "-o", tmp_path / "nav", "--resume")
    done = call("train", ENV, "-o", tmp_path / "nav", "--resume")
    assert done.exit_code == 0, done.output
    a, b = (BOMRL.load(folder / "model.zip") for folder in (run, tmp_path / "nav"))
    assert all((x == y).all() for x, y in zip(a.policy.parameters(), b.policy.parameters(), strict=True))


def test_lists():
    assert ENV in call("envs").output
    listed = call("algos").output.splitlines()
    assert [line.split()[0] for line in listed] == list(cli.REGISTRY)
    for line in listed:
        assert re.fullmatch(r"\w+ +[^(]+\(.*arXiv \d+\.\d+\)", line), "a method with its papers"
    assert listed[1] == "maml     Model-agnostic meta-learning (Finn et al., 2017, arXiv 1703.03400)"


ALGORITHMS = [name for name in cli.REGISTRY if name != "bomrl"]


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_every_algorithm_trains_is_evaluated_and_resumed(tmp_path, monkeypatch, algo):
    monkeypatch.chdir(tmp_path)
    cls, argv = cli.REGISTRY[algo], ["train", ENV, "--algo", algo, "-n", 360]
    folder = tmp_path / "runs" / f"Navigation2D-v0_{algo}_0"
    done = call(*argv, *TINY_OTHER)
    assert done.exit_code == 0, done.output
    straight = cls.load_safely(folder / "model.zip")
    assert (straight.num_timesteps, straight.n_adaptation_steps) == (360, 2)
    assert call("evaluate", folder, "--episodes", 1, "--steps", 1).output.count("\n") == 27
    call("plot", folder, "-o", tmp_path / "returns.png")
    assert (tmp_path / "returns.png").read_bytes().startswith(b"\x89PNG")

    original = cls._meta_iteration

    def interrupted(self, run, must_finish):
        if self.n_meta_iterations == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, run, must_finish)

    with monkeypatch.context() as patch:
        patch.setattr(cls, "_meta_iteration", interrupted)
        assert call(*argv, *TINY_OTHER, "-o", "stopped").exit_code == 128 + signal.SIGTERM
    with pytest.raises(ValueError, match=f"goes on with {algo} on {ENV}"):
        call("train", ENV, "-o", "stopped", "--resume")
    assert call(*argv, "-o", "stopped", "--resume").exit_code == 0
    resumed = cls.load_safely("stopped/model.zip")
    assert resumed.n_meta_iterations == straight.n_meta_iterations > 2
    pairs = zip(straight.policy.parameters(), resumed.policy.parameters(), strict=True)
    assert all((a == b).all() for a, b in pairs)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["train", ENV, "-P", "nonsense=1"], "-P must be NAME=VALUE"),
        (["train", ENV, "-P", "reg_coef=-1"], "reg_coef must be a finite number above 0"),
        (["train", ENV, "--algo", "dqn"], "algo must be one of bomrl, maml, fomaml, emaml, promp, reptile, got 'dqn'"),
        (["train", "Nothing-v0"], "Nothing"),
        (["train", ENV, "--resume", "-o", "nowhere"], "there is no nowhere"),
        (["adapt", "missing.zip", "--task", "1", "--env", ENV], "got missing.zip, which does not exist"),
        (["adapt", ".", "--task", "1"], "--env must be given"),
        (["plot", "."], "folders must hold runs"),
    ],
)
def test_mistakes_end_with_one_line(argv, words, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.sys, "argv", ["bomrl", *argv])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    err = capsys.readouterr().err
    assert err.startswith("bomrl: error: ")
    assert words in err
    assert err.count("\n") == 1


def test_wrong_usage_ends_with_two():
    assert call("train").exit_code == 2
    assert call("adapt", "x.zip").exit_code == 2
    assert call("--help").exit_code == 0
