"""rl_zoo3's own scripts with the algorithms of this package, on tiny budgets."""

import re
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from stable_baselines3.common.utils import LinearSchedule

pytest.importorskip("rl_zoo3")

from sb3_bomrl import BOMRL, zoo
from sb3_bomrl.zoo import scripts

pytestmark = pytest.mark.filterwarnings("ignore")  # rl_zoo3 and what it imports
ENV = "bomrl/Navigation2D-v0"
TINY = ["n_envs:4", "meta_batch_size:2", "n_steps:10"]
COMMON = ["--algo", "bomrl", "--env", ENV, "-f", "logs"]
RUN = Path("logs/bomrl/bomrl-Navigation2D-v0_1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with one finished run."""
    path = tmp_path_factory.mktemp("zoo")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        run(patch, "train", *COMMON, "-n", "160", "--eval-freq", "80", "--eval-episodes", "1", "--n-eval-envs", "5",
            "--seed", "0", "--env-kwargs", "horizon:5", "-params", *TINY, "n_inner_steps:2",
            "inner_lr:'lin_3e-3'")  # fmt: skip
    return path


@pytest.fixture
def zoo_run(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    return lambda *argv: run(monkeypatch, *argv)


def run(patch, *argv):
    patch.setattr(sys, "argv", ["sb3_bomrl.zoo", *argv])
    scripts.main()


def test_train_saves_the_model_and_its_adapted_returns(folder):
    path = folder / "logs" / "bomrl" / "bomrl-Navigation2D-v0_1"
    model = BOMRL.load_safely(path / "bomrl-Navigation2D-v0.zip")
    assert (model.num_timesteps, model.n_inner_steps) == (160, 2)
    assert isinstance(model.inner_lr, LinearSchedule)
    assert model.inner_lr(0.5) == pytest.approx(1.5e-3)
    record = np.load(path / "evaluations.npz")
    assert record["adaptation_returns"].shape == (3, 2, 25, 1)  # evaluations, before and after, tasks, episodes
    assert record["timesteps"].tolist() == [0, 80, 160], "inner_lr ends at 0, which cannot adapt after training"
    assert (path / "best_model.zip").exists()
    assert yaml.unsafe_load((path / "bomrl-Navigation2D-v0" / "config.yml").read_text())["inner_lr"] == "lin_3e-3"


def test_enjoy_adapts_first(zoo_run, capsys):
    zoo_run("enjoy", *COMMON, "-n", "12", "--no-render", "--load-best", "--task", "(0.2, -0.1)",
            "--adapt-episodes", "4", "--adapt-steps", "2")  # fmt: skip
    out = capsys.readouterr().out
    assert "Task (0.2, -0.1): return" in out
    assert "after 2 adaptation(s) of 4 episodes" in out
    assert "Mean reward" in out
    import rl_zoo3

    assert rl_zoo3.ALGOS["bomrl"] is BOMRL, "the tables must be as before"


def test_enjoy_without_a_task_plays_the_meta_policy(zoo_run, capsys):
    zoo_run("enjoy", *COMMON, "-n", "12", "--no-render")
    out = capsys.readouterr().out
    assert "Mean reward" in out
    assert "adaptation" not in out


@pytest.mark.parametrize("algo", [name for name in zoo.REGISTRY if name != "bomrl"])
def test_every_algorithm_trains_and_adapts_to_a_task(zoo_run, capsys, algo):
    common = ["--algo", algo, *COMMON[2:]]
    step_size = {"promp": "clip_range:'lin_0.2'", "reptile": "interpolation:'lin_0.5'"}.get(algo, "max_kl:'lin_0.1'")
    zoo_run("train", *common, "-n", "160", "--eval-freq", "80", "--eval-episodes", "1", "--n-eval-envs", "25",
            "--seed", "0", "--env-kwargs", "horizon:5", "-params", *TINY,
            "n_adaptation_steps:2", step_size)  # fmt: skip
    path = Path(f"logs/{algo}/bomrl-Navigation2D-v0_1")
    model = zoo.REGISTRY[algo].load_safely(path / "bomrl-Navigation2D-v0.zip")
    entry = yaml.safe_load(zoo.config_path(algo).read_text())["bomrl/Navigation2D-v0"]
    assert (model.num_timesteps, model.n_adaptation_steps, model.inner_lr) == (160, 2, entry["inner_lr"])
    name, text = step_size.split(":")
    assert getattr(model, name)(0.5) == pytest.approx(0.5 * float(text[5:-1]))
    record = np.load(path / "evaluations.npz")
    assert record["adaptation_returns"].shape[1:] == (2, 25, 1)
    assert record["timesteps"][:3].tolist() == [0, 80, 160]
    zoo_run("enjoy", *common, "-n", "6", "--no-render", "--task", "(0.2, -0.1)", "--adapt-episodes", "4")
    out = capsys.readouterr().out
    before, after = re.findall(r"Task \(0\.2, -0\.1\): return (\S+) ", out)
    assert before != after
    assert "after 1 adaptation(s) of 4 episodes" in out


def test_every_environment_has_the_wrappers_of_the_models(zoo_run, capsys):
    common = ["--algo", "fomaml", *COMMON[2:5], "wrapped"]
    zoo_run("train", *common, "-n", "160", "--eval-freq", "80", "--eval-episodes", "1", "--n-eval-envs", "5",
            "--seed", "0", "--env-kwargs", "horizon:5", "-params", *TINY, "frame_stack:2",
            "normalize:True")  # fmt: skip
    model = zoo.REGISTRY["fomaml"].load_safely("wrapped/fomaml/bomrl-Navigation2D-v0_1/best_model.zip")
    assert model.observation_space.shape == (4,)
    zoo_run("enjoy", *common, "-n", "6", "--no-render", "--task", "(0.2, -0.1)", "--adapt-episodes", "4")
    assert "after 1 adaptation(s) of 4 episodes" in capsys.readouterr().out


def test_search_reports_the_adapted_return_and_a_trial_can_be_trained(zoo_run, capsys):
    study = ["--storage", "sqlite:///study.db", "--study-name", "s"]
    zoo_run("train", *COMMON, "-n", "160", "-optimize", "--n-trials", "2", "--n-startup-trials", "1",
            "--n-evaluations", "2", "--eval-episodes", "1", "--n-eval-envs", "5", "--no-optim-plots", "--seed", "0",
            "--env-kwargs", "horizon:5", "-params", *TINY, *study)  # fmt: skip
    import optuna

    trials = optuna.load_study(study_name="s", storage="sqlite:///study.db").trials
    assert len(trials) == 2
    assert all(trial.intermediate_values for trial in trials)
    zoo_run("train", *COMMON, "-n", "80", "--eval-freq", "-1", "--trial-id", "1", "--seed", "0", *study,
            "--env-kwargs", "horizon:5", "-params", *TINY)  # fmt: skip
    newest = max(Path("logs/bomrl").glob("*/bomrl-Navigation2D-v0.zip"), key=lambda path: path.stat().st_mtime)
    model = BOMRL.load_safely(newest)
    assert model.reg_coef == trials[1].params["reg_coef"]


def test_plots(zoo_run, capsys):
    import matplotlib.pyplot as plt

    zoo_run("all_plots", "-a", "bomrl", "-e", "Navigation2D", "-f", "logs", "--no-display", "-o", "results")
    assert Path("results.pkl").exists()
    plt.close("all")
    zoo_run("plot_train", "-a", "bomrl", "-e", "Navigation2D", "-f", "logs", "-w", "2")
    n_episodes = sum(len(path.read_text().splitlines()) - 2 for path in RUN.glob("*.monitor.csv"))
    points = {len(line.get_ydata()) for line in plt.gcf().axes[0].lines}
    assert n_episodes == 32  # those before and those after adaptation
    assert n_episodes - 1 in points  # a rolling mean over two


def test_plots_from_a_file(zoo_run, tmp_path, capsys, monkeypatch):
    """Which rl_zoo3 draws of two runs or more."""
    for number in (1, 2):
        shutil.copytree(RUN, f"pair/bomrl/{RUN.name[:-1]}{number}")
    zoo_run("all_plots", "-a", "bomrl", "-e", "Navigation2D", "-f", "pair", "--no-display", "-o", "pair/results")
    capsys.readouterr()
    zoo_run("plot_from_file", "-i", "pair/results", "-o", str(tmp_path / "bars.png"), "--format", "png")
    assert (tmp_path / "bars.png").read_bytes().startswith(b"\x89PNG")
    last = np.load(RUN / "evaluations.npz")["adaptation_returns"][-1, 1].mean()  # after one adaptation
    assert f"{last:.0f} +/- 0" in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "rliable", None)
    with pytest.raises(ImportError, match="rliable"):
        zoo_run("plot_from_file", "-i", "pair/results", "-r")


def test_the_hub_scripts_can_be_imported():
    zoo.register()
    for name in ("push_to_hub", "load_from_hub", "record_video", "record_training"):
        runpy.run_module(scripts.SCRIPTS[name], run_name="imported")


def test_the_unmodified_script_finds_the_algorithm(tmp_path):
    """As documented: a module ``custom_envs`` in the working directory."""
    import os
    import subprocess

    (tmp_path / "custom_envs.py").write_text("from sb3_bomrl.zoo import register\n\nregister()\n")
    command = [sys.executable, "-W", "ignore", "-m", "rl_zoo3.train", *COMMON, "-n", "80", "--eval-freq", "-1",
               "--env-kwargs", "horizon:5", "-params", *TINY]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=env, timeout=600)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "logs/bomrl/bomrl-Navigation2D-v0_1/bomrl-Navigation2D-v0.zip").exists()


def test_unknown_scripts_are_named(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["zoo", "dance"])
    with pytest.raises(SystemExit, match=r"SCRIPT must be one of train, enjoy.* got 'dance'"):
        scripts.main()
