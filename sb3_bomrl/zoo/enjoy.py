"""rl_zoo3's ``enjoy`` and ``record_video`` on a chosen task, after adapting to it; and what showing it needs."""

import argparse
import ast
import importlib
import importlib.util
import runpy
import shutil
import sys
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv

from sb3_bomrl.algorithms.meta_algorithm import MetaAlgorithm
from sb3_bomrl.rollout.tasks import set_tasks
from sb3_bomrl.types import Task
from sb3_bomrl.vec_env import make_meta_vec_env

ADAPTING_SCRIPTS = ("enjoy", "record_video")
SHOWING_SCRIPTS = (*ADAPTING_SCRIPTS, "record_training")
_N_ENVS = 10


def parse_task(text: str) -> Task:
    """
    Read a task from the command line.

    :param text: a Python literal, such as ``1.3``, ``-1`` or ``(0.4, -0.1)``
    :return: the task
    :raises ValueError: if it is none
    """
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise ValueError(f"task must be a Python literal such as 1.3 or (0.4, -0.1), got {text!r}") from None


def check_can_show(script: str, argv: Sequence[str]) -> None:
    """
    Say what is missing before a script loads a model and fails on it.

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
    if script not in SHOWING_SCRIPTS or known.env is None or (script == "enjoy" and known.no_render):
        return
    modes = gym.make(known.env).metadata.get("render_modes", [])
    if not {"rgb_array", *(["human"] if script == "enjoy" else [])} & set(modes):
        advice = "; --no-render plays without" if script == "enjoy" else ""
        raise ValueError(f"--env must be able to render, but {known.env} has the render modes {modes}{advice}")


def run_adapted(module: str) -> None:
    """
    Run a script that loads a model and plays it; with ``--task``, the environments play that task, and the model adapts
    to it first.

    :param module: the script
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--task", type=str, help="task to play, a Python literal")
    parser.add_argument("--adapt-episodes", type=int, default=20, help="episodes per adaptation step")
    parser.add_argument("--adapt-steps", type=int, default=1, help="adaptation steps; 0 plays the meta-policy")
    known, sys.argv[1:] = parser.parse_known_args(sys.argv[1:])
    if "-h" in sys.argv or "--help" in sys.argv:
        parser.print_help()
    if known.task is None:
        runpy.run_module(module, run_name="__main__")
        return
    _run_on_task(module, parse_task(known.task), known.adapt_episodes, known.adapt_steps)


def _run_on_task(module: str, task: Task, n_episodes: int, n_steps: int) -> None:
    package, utils = importlib.import_module("rl_zoo3"), importlib.import_module("rl_zoo3.utils")
    create, algorithms = utils.create_test_env, dict(utils.ALGOS)
    made: dict[str, Any] = {}

    def create_test_env(env_id: str, *args: Any, **kwargs: Any) -> VecEnv:
        env = create(env_id, *args, **kwargs)
        set_tasks(env, [task], env.num_envs)
        made.update(env_id=env_id, env_kwargs=dict(kwargs.get("env_kwargs") or {}))
        return env

    def adapting(algorithm: type[MetaAlgorithm]) -> type:
        def load(path: str, custom_objects: Any = None, **kwargs: Any) -> MetaAlgorithm:
            # rl_zoo3 replaces step sizes that are not needed for playing; for adapting they are
            model = algorithm.load(path, **kwargs)
            return _adapt(model, made["env_id"], made["env_kwargs"], task, n_episodes, n_steps)

        return type(f"Adapting{algorithm.__name__}", (), {"load": staticmethod(load)})

    def replace(make: Callable[..., Any], table: dict[str, Any]) -> None:
        package.create_test_env = utils.create_test_env = make  # type: ignore[attr-defined]
        utils.ALGOS.update(table)

    ours = {name: cls for name, cls in algorithms.items() if issubclass(cls, MetaAlgorithm)}
    replace(create_test_env, {name: adapting(cls) for name, cls in ours.items()})
    try:
        runpy.run_module(module, run_name="__main__")
    finally:
        replace(create, ours)


def _adapt(
    model: MetaAlgorithm, env_id: str, env_kwargs: dict[str, Any], task: Task, n_episodes: int, n_steps: int
) -> MetaAlgorithm:
    """Adapt, and print what it brought."""
    if model._normalizer_statistics is not None:
        raise ValueError(
            "--task needs a model that normalises its observations itself, by NormalizedFlattenExtractor: this one was "
            "trained with normalize"
        )
    env_kwargs.pop("render_mode", None)
    env = make_meta_vec_env(env_id, _N_ENVS, seed=model.seed, env_kwargs=env_kwargs)
    set_tasks(env, [task], _N_ENVS)
    before, _ = evaluate_policy(model, env, n_eval_episodes=_N_ENVS)
    print(f"Task {task}: return {before:.2f} before adaptation")
    for step in range(n_steps):
        model = model.adapt(env, n_episodes=n_episodes, seed=step)
        after, _ = evaluate_policy(model, env, n_eval_episodes=_N_ENVS)
        print(f"Task {task}: return {after:.2f} after {step + 1} adaptation(s) of {n_episodes} episodes")
    return model
