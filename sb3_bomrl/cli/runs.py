"""What the commands of the command line do."""

import ast
import csv
import inspect
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import CSVOutputFormat, HumanOutputFormat, KVWriter, Logger
from stable_baselines3.common.preprocessing import is_image_space

from sb3_bomrl.algorithms.evaluation import evaluate_adaptation
from sb3_bomrl.algorithms.meta_algorithm import MetaAlgorithm
from sb3_bomrl.callbacks.checkpoint import ExactCheckpointCallback
from sb3_bomrl.policies.extractors import NormalizedFlattenExtractor
from sb3_bomrl.saving.checkpoints import checkpoints, load_checkpoint
from sb3_bomrl.saving.files import write_atomically
from sb3_bomrl.types import Task
from sb3_bomrl.vec_env import make_meta_vec_env
from sb3_bomrl.zoo.registration import REGISTRY

_N_ENVS = 20


def algorithm(name: str) -> type[MetaAlgorithm]:
    """
    :param name: of an algorithm
    :return: its class
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


def _policy(env: Any) -> dict[str, Any]:
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


def train(
    env_id: str,
    algo: str,
    params: Sequence[str],
    timesteps: int,
    folder: Path,
    seed: int,
    resume: bool,
    save_freq: int,
    verbose: bool,
) -> int | None:
    """
    Meta-train into a folder, or go on there.

    :param env_id: environment
    :param algo: algorithm
    :param params: settings, ``name=value``
    :param timesteps: environment steps
    :param folder: of the run
    :param seed: of everything
    :param resume: go on with the run in the folder, with its own settings
    :param save_freq: meta-iterations between checkpoints
    :param verbose: print the log
    :return: the signal that stopped the run, ``None`` if it is complete
    :raises ValueError: if the folder holds a run and ``resume`` is false, or an argument is wrong
    """
    cls = algorithm(algo)
    settings = parse_params(params, cls)
    started, stored = folder / "run.json", folder / "checkpoints"
    if resume:
        env_id, n_envs, settings, seed, timesteps = _interrupted(started, env_id, algo, params)
    elif started.exists():
        raise ValueError(f"output must be a new folder, got {folder}, which holds a run: --resume goes on with it")
    else:
        n_envs = settings.get("meta_batch_size", 5) * settings.pop("n_envs_per_task", 20)
    env = make_meta_vec_env(env_id, n_envs, seed=seed)
    model = load_checkpoint(cls, stored, env, device="auto") if resume else None
    is_new = model is None
    if model is None:
        model = cls(env=env, seed=seed, **{**_policy(env), **settings})
        folder.mkdir(parents=True, exist_ok=True)
        run = {"env": env_id, "algo": algo, "n_envs": n_envs, "params": settings, "seed": seed, "timesteps": timesteps}
        write_atomically(started, lambda file: file.write(json.dumps(run, indent=1).encode()))
    outputs: list[KVWriter] = [CSVOutputFormat(str(folder / f"progress_{model.num_timesteps:012d}.csv"))]
    if verbose:
        outputs.append(HumanOutputFormat(sys.stdout))
    model.set_logger(Logger(str(folder), outputs))
    callback = ExactCheckpointCallback(stored, save_freq)
    has_bar = sys.stdout.isatty() and not verbose
    if is_new:
        model.learn(timesteps, callback, progress_bar=has_bar)
    else:
        print(f"Going on from {checkpoints(stored)[-1]}, at {model.num_timesteps:,} environment steps")
        model.resume(callback, progress_bar=has_bar)
    env.close()
    model.logger.close()
    if callback.interrupted_by is None:
        model.save(folder / "model.zip")
    return callback.interrupted_by


def _interrupted(
    started: Path, env_id: str, algo: str, params: Sequence[str]
) -> tuple[str, int, dict[str, Any], int, int]:
    """Settings of the run to go on with."""
    if not started.exists():
        raise ValueError(f"--resume needs a run to go on with, but there is no {started}")
    run = json.loads(started.read_text())
    if params or (run["env"], run["algo"]) != (env_id, algo):
        raise ValueError(
            f"--resume goes on with {run['algo']} on {run['env']} and the settings {run['params']} of {started}: "
            "leave -P out, and give that env and algo"
        )
    return run["env"], run["n_envs"], run["params"], run["seed"], run["timesteps"]


class LoadedModel(NamedTuple):
    """
    A model with the environment it is for.

    :param model: the model
    :param env_id: the environment
    """

    model: MetaAlgorithm
    env_id: str

    def _env(self, task: Task | None = None, seed: int = 0) -> Any:
        return make_meta_vec_env(self.env_id, _N_ENVS, seed=seed, env_kwargs=None if task is None else {"task": task})

    def adapt(self, task: Task, episodes: int, steps: int, seed: int) -> MetaAlgorithm:
        """
        Adapt to a task and print returns.

        :param task: the task
        :param episodes: per step
        :param steps: adaptation steps
        :param seed: of the episodes
        :return: the adapted model
        """
        env, model = self._env(task, seed), self.model
        print(f"task {task}: return {evaluate_policy(model, env, _N_ENVS)[0]:.1f} before adaptation")
        for step in range(steps):
            model = model.adapt(env, episodes, seed=seed + step)
            print(f"task {task}: return {evaluate_policy(model, env, _N_ENVS)[0]:.1f} after {step + 1} adaptation(s)")
        return model

    def evaluate(self, episodes: int, steps: int, path: Path | None, stochastic: bool, seed: int) -> None:
        """
        Print the returns on the test tasks after 0 ... ``steps`` adaptations, and write them.

        :param episodes: per adaptation, and to score
        :param steps: adaptation steps
        :param path: CSV file
        :param stochastic: score sampled actions
        :param seed: of the episodes
        """
        curve = evaluate_adaptation(self.model, self._env(), None, steps, episodes, episodes, not stochastic, seed)
        means = curve.returns.mean(2)
        print("task".ljust(24) + "".join(f"{f'after {k}':>12}" for k in range(steps + 1)))
        for i, task in enumerate(curve.tasks):
            print(str(task)[:23].ljust(24) + "".join(f"{value:12.1f}" for value in means[:, i]))
        print("mean".ljust(24) + "".join(f"{value:12.1f}" for value in means.mean(1)))
        if path is None:
            return
        table = io.StringIO(newline="")
        writer = csv.writer(table)
        writer.writerow(("task", "adaptations", "env_steps", "mean_return", "std_return"))
        for i, task in enumerate(curve.tasks):
            for k in range(steps + 1):
                r = curve.returns[k, i]
                writer.writerow((task, k, curve.env_steps[k, i], r.mean(), r.std()))
        write_atomically(path, lambda file: file.write(table.getvalue().encode()))

    def video(self, task: Task, path: Path, episodes: int, steps: int, seed: int) -> None:
        """
        Record one episode before and one after adaptation, side by side.

        :param task: the task
        :param path: ``.gif`` or ``.mp4``
        :param episodes: per adaptation step
        :param steps: adaptation steps
        :param seed: of the episodes
        :raises ValueError: for another kind of file, or an environment that cannot render
        """
        modes = gym.make(self.env_id).metadata.get("render_modes", [])
        if "rgb_array" not in modes:
            raise ValueError(f"env must be able to render, but {self.env_id} has the render modes {modes}")
        if path.suffix not in (".gif", ".mp4"):
            raise ValueError(f"output must end in .gif or .mp4, got {path}")
        import imageio.v2 as imageio

        shown = [self._frames(model, task, seed) for model in (self.model, self.adapt(task, episodes, steps, seed))]
        length = max(map(len, shown))
        padded = [frames + frames[-1:] * (length - len(frames)) for frames in shown]
        frames = [np.concatenate(pair, axis=1) for pair in zip(*padded, strict=True)]
        path.parent.mkdir(parents=True, exist_ok=True)
        kwargs: dict[str, Any] = {"duration": 1000 / 25} if path.suffix == ".gif" else {"fps": 25}
        imageio.mimsave(path, frames, **kwargs)  # type: ignore[arg-type]

    def _frames(self, model: MetaAlgorithm, task: Task, seed: int) -> list[np.ndarray]:
        env = gym.make(self.env_id, render_mode="rgb_array", task=task)
        obs, _ = env.reset(seed=seed)
        frames, done = [env.render()], False
        while not done:
            obs, _, terminated, truncated, _ = env.step(model.predict(obs, deterministic=True)[0])
            frames.append(env.render())
            done = terminated or truncated
        env.close()
        return [np.asarray(frame) for frame in frames]


def load(path: Path, env_id: str | None, trusted: bool) -> LoadedModel:
    """
    Load a model and find its environment.

    :param path: model file, or the folder of a run
    :param env_id: the environment; from ``run.json`` beside the model if not given
    :param trusted: unpickle
    :return: both
    :raises ValueError: if there is no such file, no environment id, or the file is refused
    """
    if not path.exists():
        raise ValueError(f"MODEL must be a model file or the folder of a run, got {path}, which does not exist")
    folder = path if path.is_dir() else path.parent
    run: dict[str, Any] = {}
    if (folder / "run.json").exists():
        run = json.loads((folder / "run.json").read_text())
    env_id = env_id or run.get("env")
    if env_id is None:
        raise ValueError(f"--env must be given: there is no run.json beside {path}")
    file = path / "model.zip" if path.is_dir() else path
    return LoadedModel(algorithm(run.get("algo", "bomrl")).load(file, trusted=trusted), env_id)
