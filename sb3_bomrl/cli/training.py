"""``bomrl train``: a run in a folder, with checkpoints."""

import json
import sys
from pathlib import Path
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import HumanOutputFormat, KVWriter, Logger
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.vec_env import VecEnv

from sb3_bomrl.algorithms.meta_algorithm import MetaAlgorithm
from sb3_bomrl.callbacks.checkpoint import ExactCheckpointCallback
from sb3_bomrl.callbacks.progress import ProgressLineCallback
from sb3_bomrl.cli.progress_csv import ProgressCSV
from sb3_bomrl.cli.run import RUN_FILE, Run, find_algorithm
from sb3_bomrl.rollout.workers import close_in_time
from sb3_bomrl.saving.checkpoints import checkpoints, load_checkpoint
from sb3_bomrl.saving.files import write_atomically
from sb3_bomrl.saving.lock import folder_lock
from sb3_bomrl.vec_env import make_meta_vec_env
from sb3_bomrl.zoo.registry import constructor_arguments


def train(run: Run, folder: Path, resume: bool, save_freq: int, verbose: bool, trusted: bool) -> int | None:
    """
    Meta-train into a folder, or go on there.

    :param run: the settings
    :param folder: of the run
    :param resume: go on from the latest checkpoint in the folder, if there is one
    :param save_freq: meta-iterations between checkpoints
    :param verbose: print the log
    :param trusted: unpickle objects in the checkpoint
    :return: the signal that stopped the run, ``None`` if it is complete
    :raises ValueError: if the folder holds a run and ``resume`` is false, another process writes there, or a setting is
        wrong
    """
    cls = find_algorithm(run.algo)
    env = make_meta_vec_env(run.env, run.n_envs, seed=run.seed)

    def make() -> MetaAlgorithm:
        return cls(env=env, seed=run.seed, **{**_policy(env), **constructor_arguments(cls, run.params)})

    made = None if resume else make()  # before the folder is: a mistake in the settings leaves none behind
    try:
        with folder_lock(folder):
            if not resume:
                _write_run_file(run, folder)
            stored = folder / "checkpoints"
            saved = load_checkpoint(cls, stored, env, device="auto", trusted=trusted) if resume else None
            return _train(saved or made or make(), run, folder, save_freq, verbose, saved is not None)
    finally:
        close_in_time(env)


def _write_run_file(run: Run, folder: Path) -> None:
    if (folder / RUN_FILE).exists():
        raise ValueError(f"output must be a new folder, got {folder}, which holds a run: --resume goes on with it")
    text = json.dumps(run._asdict(), indent=1)
    write_atomically(folder / RUN_FILE, lambda file: file.write(text.encode()))


def _train(model: MetaAlgorithm, run: Run, folder: Path, save_freq: int, verbose: bool, goes_on: bool) -> int | None:
    outputs: list[KVWriter] = [ProgressCSV(folder / f"progress_{model.num_timesteps:012d}.csv")]
    if verbose:
        outputs.append(HumanOutputFormat(sys.stdout))
    model.set_logger(Logger(str(folder), outputs))
    checkpoint = ExactCheckpointCallback(folder / "checkpoints", save_freq)
    has_bar = sys.stdout.isatty() and not verbose
    callbacks: list[BaseCallback] = [checkpoint]
    if not has_bar and not verbose:
        callbacks.append(ProgressLineCallback())
    if goes_on:
        print(f"Going on from {checkpoints(checkpoint.folder)[-1]}, at {model.num_timesteps:,} environment steps")
        model.resume(callbacks, progress_bar=has_bar)
    else:
        model.learn(run.timesteps, callbacks, progress_bar=has_bar)
    model.logger.close()
    if checkpoint.interrupted_by is None:
        _save(model, folder / "model.zip")
    return checkpoint.interrupted_by


def _save(model: MetaAlgorithm, path: Path) -> None:
    try:
        model.save(path)
    except OSError as error:
        raise OSError(f"{path} could not be written ({error}): make room, and go on with --resume") from error


def _policy(env: VecEnv) -> dict[str, Any]:
    """The policy that suits an environment's observations."""
    observed, acted = env.observation_space, env.action_space
    if isinstance(observed, spaces.Dict):
        return {"policy": "MultiInputPolicy"}
    if isinstance(observed, spaces.Discrete) and isinstance(acted, spaces.Discrete):
        return {"policy": "TabularPolicy"}
    if is_image_space(observed):
        return {"policy": "CnnPolicy"}
    return {"policy": "MlpPolicy"}
