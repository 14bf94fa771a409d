"""rl_zoo3's scripts with our algorithms; ``enjoy`` and ``record_video`` adapt to a chosen task first."""

import argparse
import importlib
import importlib.util
import runpy
import shutil
import sys
from collections.abc import Sequence
from copy import deepcopy
from typing import Any
from unittest.mock import patch

from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_bomrl.algorithms.meta_algorithm import MetaAlgorithm
from sb3_bomrl.rollout.tasks import set_tasks
from sb3_bomrl.types import Task
from sb3_bomrl.zoo.play import adapt_and_print, check_renders, parse_task
from sb3_bomrl.zoo.registration import register

SCRIPTS: dict[str, str] = {
    "train": "rl_zoo3.train",
    "enjoy": "rl_zoo3.enjoy",
    "record_video": "rl_zoo3.record_video",
    "record_training": "rl_zoo3.record_training",
    "plot_train": "rl_zoo3.plots.plot_train",
    "all_plots": "rl_zoo3.plots.all_plots",
    "plot_from_file": "rl_zoo3.plots.plot_from_file",
    "push_to_hub": "rl_zoo3.push_to_hub",
    "load_from_hub": "rl_zoo3.load_from_hub",
}
_ADAPTING = ("enjoy", "record_video")
_SHOWING = (*_ADAPTING, "record_training")
_N_ENVS = 10


def main() -> None:
    """Run one of rl_zoo3's scripts with its own arguments."""
    if len(sys.argv) < 2 or sys.argv[1] not in SCRIPTS:
        given = f", got {sys.argv[1]!r}" if len(sys.argv) > 1 else ""
        sys.exit(f"usage: python -m sb3_bomrl.zoo SCRIPT ...\nSCRIPT must be one of {', '.join(SCRIPTS)}{given}")
    script = sys.argv.pop(1)
    register()
    check_can_show(script, sys.argv[1:])
    if script in _ADAPTING:
        _run_adapting(SCRIPTS[script])
    else:
        runpy.run_module(SCRIPTS[script], run_name="__main__")


def check_can_show(script: str, argv: Sequence[str]) -> None:
    """
    Check that a script can show what it is asked to, before it loads a model.

    :param script: name of the script
    :param argv: its arguments
    :raises ImportError: if ``record_video`` has no moviepy
    :raises FileNotFoundError: if ``record_training`` has no ffmpeg
    :raises ValueError: if the environment cannot render
    """
    if script == "record_video" and importlib.util.find_spec("moviepy") is None:
        raise ImportError("record_video needs moviepy, which brings ffmpeg: run `pip install 'sb3-bomrl[zoo]'`")
    if script == "record_training" and shutil.which("ffmpeg") is None:
        raise FileNotFoundError("record_training needs the program ffmpeg, a package of the system: it is not on PATH")
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--env")
    parser.add_argument("--no-render", action="store_true")
    known, _ = parser.parse_known_args(argv)
    if script not in _SHOWING or known.env is None:
        return
    if script != "enjoy":
        check_renders(known.env)
    elif not known.no_render:
        check_renders(known.env, {"rgb_array", "human"}, "; --no-render plays without")


def _run_adapting(module: str) -> None:
    """Run a script that plays a model; with ``--task``, the model adapts to that task first."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--task", type=str, help="task to play, a Python literal")
    parser.add_argument("--adapt-episodes", type=int, default=20, help="episodes per adaptation step")
    parser.add_argument("--adapt-steps", type=int, default=1, help="adaptation steps; 0 plays the meta-policy")
    known, sys.argv[1:] = parser.parse_known_args(sys.argv[1:])
    if "-h" in sys.argv or "--help" in sys.argv:
        parser.print_help()
    if known.task is None:
        runpy.run_module(module, run_name="__main__")
    else:
        _run_on_task(module, parse_task(known.task), known.adapt_episodes, known.adapt_steps)


def _run_on_task(module: str, task: Task, n_episodes: int, n_steps: int) -> None:
    """Run a script while rl_zoo3 makes environments of the task, and loads models that have adapted to it."""
    package, utils = importlib.import_module("rl_zoo3"), importlib.import_module("rl_zoo3.utils")
    original = utils.create_test_env
    made: list[VecEnv] = []

    def create_test_env(env_id: str, **kwargs: Any) -> VecEnv:
        env_kwargs = {k: v for k, v in (kwargs.get("env_kwargs") or {}).items() if k != "render_mode"}
        unseen = {"n_envs": _N_ENVS, "should_render": False, "log_dir": None, "vec_env_cls": DummyVecEnv}
        made.append(original(env_id, **deepcopy({**kwargs, **unseen, "env_kwargs": env_kwargs})))
        env = original(env_id, **kwargs)
        set_tasks(env, [task], env.num_envs)
        return env

    def adapting(algorithm: type[MetaAlgorithm]) -> type:
        def load(path: str, custom_objects: Any = None, **kwargs: Any) -> MetaAlgorithm:
            # rl_zoo3's custom_objects replace the step sizes, which adapting needs
            model = algorithm.load(path, **kwargs)
            return adapt_and_print(model, made[-1], task, n_episodes, n_steps)

        return type(f"Adapting{algorithm.__name__}", (), {"load": staticmethod(load)})

    ours = {name: adapting(cls) for name, cls in utils.ALGOS.items() if issubclass(cls, MetaAlgorithm)}
    with (
        patch.object(package, "create_test_env", create_test_env),
        patch.object(utils, "create_test_env", create_test_env),
        patch.dict(utils.ALGOS, ours),
    ):
        runpy.run_module(module, run_name="__main__")
