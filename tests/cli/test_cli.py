"""The command line, as a user calls it."""

import csv
import json
import os
import re
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer

pytest.importorskip("typer")

from typer.testing import CliRunner

from sb3_bomrl import BOMRL, MAML, make_meta_vec_env, zoo
from sb3_bomrl.cli import app as cli
from sb3_bomrl.cli.run import Run, new_run
from sb3_bomrl.saving.checkpoints import checkpoints
from sb3_bomrl.zoo import play
from tests.cli.test_progress_csv import full_disk

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


def test_a_bare_file_says_which_algorithm_it_is_of(tiny, tmp_path):
    env = make_meta_vec_env(ENV, 4)
    tiny.model(env, cls=MAML).save(tmp_path / "maml.zip")
    done = call("evaluate", tmp_path / "maml.zip", "--env", ENV, "--episodes", 1, "--steps", 0)
    assert done.exit_code == 0, done.output
    PPO("MlpPolicy", env, n_steps=8, batch_size=8).save(tmp_path / "ppo.zip")
    with pytest.raises(ValueError, match=r"by this package: .*ppo\.zip.* was saved by another library"):
        call("evaluate", tmp_path / "ppo.zip", "--env", ENV, "--trusted")


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
    before = (tmp_path / name).read_bytes()
    played.clear()
    if name == "a.gif":  # ffmpeg writes a file of its own first
        with full_disk(10), pytest.raises(OSError, match=name):
            call("video", run, "--task", "(0.4, -0.1)", "--episodes", 2, "-o", tmp_path / name)
    assert (tmp_path / name).read_bytes() == before


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
        (
            ["train", ENV, "-P", "normalize_advantage=perhaps"],
            "normalize_advantage must be True or False, got 'perhaps'",
        ),
        (["train", ENV, "-P", "learning_rate=exp_1"], "learning_rate must be a number or 'lin_<start>', got 'exp_1'"),
        (["train", ENV, "-P", "policy_kwargs=dict(a=open('x'))"], "policy_kwargs must be made of literals"),
        (["train", ENV, "-P", "policy_kwargs=[8]"], "policy_kwargs must be a dictionary or None, got [8]"),
        (["train", ENV, "-P", "policy_kwargs=dict(colour=1)"], "colour"),
        (["train", ENV, "-P", "n_steps=1000000000000"], "n_steps must be at most 2147483647, got 1000000000000"),
        (["train", ENV, "-P", "n_steps=2.5"], "n_steps must be an integer, got 2.5"),
        (["train", ENV, "-P", "n_envs_per_task=many"], "n_envs_per_task must be an integer or None, got 'many'"),
        (["train", ENV, "-P", "meta_batch_size=1000000000"], "n_envs must be at most 1048576, got 20000000000"),
        (
            ["train", ENV, "-P", "device=meta"],
            "device must be 'auto', 'cpu' or one that torch can use here, got 'meta'",
        ),
        (["train", ENV, "-P", "policy=Nothing"], "Nothing"),
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


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        *(
            (f"normalize_advantage={text}", "normalize_advantage", False)
            for text in ("false", "off", "no", "0", "False")
        ),
        *((f"discount_states={text}", "discount_states", True) for text in ("true", "on", "yes", "1", "True")),
        ("policy_kwargs=dict(net_arch=[8], activation_fn=nn.ReLU)", "policy_kwargs", None),
        ("policy_kwargs={'net_arch': [8]}", "policy_kwargs", {"net_arch": [8]}),
        ("inner_max_kl=inf", "inner_max_kl", float("inf")),
        ("tasks_per_chunk=None", "tasks_per_chunk", None),
        ("surrogate='linear'", "surrogate", "linear"),
        ("reg_coef=1e-3", "reg_coef", 1e-3),
        ("rollout_buffer_class=RolloutBuffer", "rollout_buffer_class", RolloutBuffer),
    ],
)
def test_settings_are_read_by_their_types(text, name, value):
    run = new_run(ENV, "bomrl", [text], 0, 100)
    assert Run(**json.loads(json.dumps(run._asdict()))) == run
    found = zoo.constructor_arguments(BOMRL, run.params)[name]
    if value is None and name == "policy_kwargs":
        value = {"net_arch": [8], "activation_fn": th.nn.ReLU}
    assert found == value
    assert type(found) is type(value)


def test_schedules_and_networks_are_trained_and_loaded(tmp_path):
    own = ["-P", "learning_rate=lin_3e-4", "-P", "outer_step=adam", "-P", "policy_kwargs=dict(net_arch=[8])"]
    done = call("train", ENV, *TINY_BOMRL, *own, "-P", "normalize_advantage=off", "-n", 80, "-o", tmp_path / "nav")
    assert done.exit_code == 0, done.output
    model = BOMRL.load_safely(tmp_path / "nav" / "model.zip")
    assert (model.learning_rate(0.5), model.policy_kwargs) == (1.5e-4, {"net_arch": [8]})
    assert model.normalize_advantage is False
    assert call("evaluate", tmp_path / "nav", "--episodes", 1, "--steps", 0).exit_code == 0


@pytest.mark.parametrize("text", ["{}", "[]"])
def test_a_run_file_of_something_else_ends_with_one_line(text, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.json").write_text(text)
    for argv in (["train", ENV, "-o", ".", "--resume"], ["evaluate", "."], ["adapt", ".", "--task", "1"]):
        monkeypatch.setattr(cli.sys, "argv", ["bomrl", *argv])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code == 1
        err = capsys.readouterr().err
        assert "run.json must hold the settings of a run of `bomrl train`" in err
        assert err.count("\n") == 1


def test_wrong_usage_ends_with_two():
    assert call("train").exit_code == 2
    assert call("adapt", "x.zip").exit_code == 2
    assert call("--help").exit_code == 0
