"""``bomrl train``: a run in a folder, with checkpoints."""

import ast
import inspect
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import CSVOutputFormat, HumanOutputFormat, KVWriter, Logger
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.vec_env import VecEnv

from sb3_bomrl.algorithms.meta_algorithm import MetaAlgorithm
from sb3_bomrl.callbacks.checkpoint import ExactCheckpointCallback
from sb3_bomrl.callbacks.progress import ProgressLineCallback
from sb3_bomrl.policies.extractors import NormalizedFlattenExtractor
from sb3_bomrl.saving.checkpoints import checkpoints, load_checkpoint
from sb3_bomrl.saving.files import write_atomically
from sb3_bomrl.vec_env import make_meta_vec_env
from sb3_bomrl.zoo.registry import REGISTRY

RUN_FILE = "run.json"
"""Name of the file in a run's folder that holds its :class:`Run`."""


class Run(NamedTuple):
    """
    The settings of a run.

    :param env: environment id
    :param algo: name of the algorithm
    :param n_envs: number of environments
    :param params: arguments of the algorithm
    :param seed: of everything
    :param timesteps: environment steps
    """

    env: str
    algo: str
    n_envs: int
    params: dict[str, Any]
    seed: int
    timesteps: int


def find_algorithm(name: str) -> type[MetaAlgorithm]:
    """
    Return an algorithm's class.

    :param name: its name
    :return: the class
    :raises ValueError: if there is none of that name
    """
    if name not in REGISTRY:
        raise ValueError(f"algo must be one of {', '.join(REGISTRY)}, got {name!r}")
    return REGISTRY[name]


def parse_params(params: Sequence[str], cls: type[MetaAlgorithm]) -> dict[str, Any]:
    """
    Read ``name=value``.

    :param params: from the command line; values are Python literals, or text
    :param cls: the algorithm they are for
    :return: keyword arguments
    :raises ValueError: if one is not of that form, or no setting of the algorithm
    """
    reserved = {"self", "env", "seed", "verbose", "_init_setup_model"}
    known, found = set(inspect.signature(cls.__init__).parameters) - reserved, {}
    for param in params:
        name, equals, text = param.partition("=")
        if not equals or name not in known:
            raise ValueError(f"-P must be NAME=VALUE with a setting of {cls.__name__}, got {param!r}: {sorted(known)}")
        try:
            found[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            found[name] = text
    return found


def new_run(env: str, algo: str, params: Sequence[str], seed: int, timesteps: int) -> Run:
    """
    Put the settings of a new run together.

    :param env: environment id
    :param algo: name of the algorithm
    :param params: ``name=value``
    :param seed: of everything
    :param timesteps: environment steps
    :return: the run
    :raises ValueError: if there is no such algorithm, or it has no such setting
    """
    cls = find_algorithm(algo)
    settings = parse_params(params, cls)
    defaults = inspect.signature(cls.__init__).parameters
    n_per_task = settings.pop("n_envs_per_task", defaults["n_envs_per_task"].default)
    n_envs = settings.get("meta_batch_size", defaults["meta_batch_size"].default) * n_per_task
    return Run(env, algo, n_envs, settings, seed, timesteps)


def read_run(folder: Path, env: str, algo: str, params: Sequence[str]) -> Run:
    """
    Read the settings of an interrupted run.

    :param folder: of the run
    :param env: its environment
    :param algo: its algorithm
    :param params: must be empty
    :return: the run
    :raises ValueError: if the folder holds no run, or one of another environment or algorithm, or settings are given
    """
    file = folder / RUN_FILE
    if not file.exists():
        raise ValueError(f"--resume needs a run to go on with, but there is no {file}")
    run = Run(**json.loads(file.read_text()))
    if params or (run.env, run.algo) != (env, algo):
        raise ValueError(
            f"--resume goes on with {run.algo} on {run.env} and the settings {run.params} of {file}: "
            "leave -P out, and give that env and algo"
        )
    return run


def train(run: Run, folder: Path, resume: bool, save_freq: int, verbose: bool) -> int | None:
    """
    Meta-train into a folder, or go on there.

    :param run: the settings
    :param folder: of the run
    :param resume: go on from the latest checkpoint in the folder, if there is one
    :param save_freq: meta-iterations between checkpoints
    :param verbose: print the log
    :return: the signal that stopped the run, ``None`` if it is complete
    :raises ValueError: if the folder holds a run and ``resume`` is false, or a setting is wrong
    """
    if not resume and (folder / RUN_FILE).exists():
        raise ValueError(f"output must be a new folder, got {folder}, which holds a run: --resume goes on with it")
    cls, stored = find_algorithm(run.algo), folder / "checkpoints"
    env = make_meta_vec_env(run.env, run.n_envs, seed=run.seed)
    saved = load_checkpoint(cls, stored, env, device="auto") if resume else None
    model = saved or cls(env=env, seed=run.seed, **{**_policy(env), **run.params})
    if saved is None:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(run._asdict(), indent=1)
        write_atomically(folder / RUN_FILE, lambda file: file.write(text.encode()))
    outputs: list[KVWriter] = [CSVOutputFormat(str(folder / f"progress_{model.num_timesteps:012d}.csv"))]
    if verbose:
        outputs.append(HumanOutputFormat(sys.stdout))
    model.set_logger(Logger(str(folder), outputs))
    checkpoint = ExactCheckpointCallback(stored, save_freq)
    has_bar = sys.stdout.isatty() and not verbose
    callbacks: list[BaseCallback] = [checkpoint]
    if not has_bar and not verbose:
        callbacks.append(ProgressLineCallback())
    if saved is None:
        model.learn(run.timesteps, callbacks, progress_bar=has_bar)
    else:
        print(f"Going on from {checkpoints(stored)[-1]}, at {model.num_timesteps:,} environment steps")
        model.resume(callbacks, progress_bar=has_bar)
    env.close()
    model.logger.close()
    if checkpoint.interrupted_by is None:
        model.save(folder / "model.zip")
    return checkpoint.interrupted_by


def _policy(env: VecEnv) -> dict[str, Any]:
    """The policy that suits an environment's observations."""
    observed, acted = env.observation_space, env.action_space
    if isinstance(observed, spaces.Dict):
        return {"policy": "MultiInputPolicy"}
    if isinstance(observed, spaces.Discrete) and isinstance(acted, spaces.Discrete):
        return {"policy": "TabularPolicy"}
    if is_image_space(observed):
        return {"policy": "CnnPolicy"}
    if isinstance(observed, spaces.Box):
        kwargs = {"features_extractor_class": NormalizedFlattenExtractor, "log_std_init": -0.5}
        return {"policy": "MlpPolicy", "policy_kwargs": kwargs}
    return {"policy": "MlpPolicy"}
