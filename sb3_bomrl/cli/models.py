"""``bomrl adapt``, ``evaluate`` and ``video``: a trained model in the environment it is for."""

from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from sb3_bomrl.algorithms.evaluation import evaluate_adaptation, write_curves
from sb3_bomrl.algorithms.meta_algorithm import MetaAlgorithm
from sb3_bomrl.algorithms.registry import REGISTRY
from sb3_bomrl.checks import shortened
from sb3_bomrl.cli.run import RUN_FILE, read_run
from sb3_bomrl.saving.files import make_folder, write_atomically
from sb3_bomrl.saving.model_file import saved_algorithm
from sb3_bomrl.types import Task
from sb3_bomrl.vec_env import make_meta_vec_env
from sb3_bomrl.zoo.play import adapt_and_print, check_renders

_N_ENVS = 20
_FPS = 25


class LoadedModel(NamedTuple):
    """
    A model with the environment it is for.

    :param model: the model
    :param env_id: the environment
    """

    model: MetaAlgorithm
    env_id: str

    def adapt(self, task: Task, episodes: int, steps: int, seed: int) -> MetaAlgorithm:
        """
        Adapt to a task and print returns.

        :param task: the task
        :param episodes: per adaptation step
        :param steps: adaptation steps
        :param seed: of the episodes
        :return: the adapted model
        """
        env = make_meta_vec_env(self.env_id, _N_ENVS, seed=seed)
        return adapt_and_print(self.model, env, task, episodes, steps, seed)

    def evaluate(self, episodes: int, steps: int, path: Path | None, stochastic: bool, seed: int) -> None:
        """
        Print the returns on the test tasks after 0, 1, ... adaptations, and write them.

        :param episodes: per adaptation step, and to score
        :param steps: adaptation steps
        :param path: CSV file
        :param stochastic: score sampled actions
        :param seed: of the episodes
        """
        env = make_meta_vec_env(self.env_id, _N_ENVS, seed=0)
        curve = evaluate_adaptation(self.model, env, None, steps, episodes, episodes, not stochastic, seed)
        means = curve.returns.mean(2)
        print("task".ljust(24) + "".join(f"{f'after {k}':>12}" for k in range(steps + 1)))
        for i, task in enumerate(curve.tasks):
            print(str(task)[:23].ljust(24) + "".join(f"{value:12.1f}" for value in means[:, i]))
        print("mean".ljust(24) + "".join(f"{value:12.1f}" for value in means.mean(1)))
        if path is not None:
            write_curves(path, "timesteps", [(self.model.num_timesteps, curve)])

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
        check_renders(self.env_id)
        if path.suffix not in (".gif", ".mp4"):
            raise ValueError(f"output must end in .gif or .mp4, got {path}")
        import imageio.v2 as imageio

        shown = [self._frames(model, task, seed) for model in (self.model, self.adapt(task, episodes, steps, seed))]
        length = max(map(len, shown))
        padded = [frames + frames[-1:] * (length - len(frames)) for frames in shown]
        frames = [np.concatenate(pair, axis=1) for pair in zip(*padded, strict=True)]
        kwargs: dict[str, Any] = {"duration": 1000 / _FPS} if path.suffix == ".gif" else {"fps": _FPS}
        data: Any = imageio.mimsave("<bytes>", frames, format=path.suffix, **kwargs)  # type: ignore[arg-type]
        make_folder(path.parent)
        write_atomically(path, lambda file: file.write(data))

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
    folder, file = (path, path / "model.zip") if path.is_dir() else (path.parent, path)
    run = read_run(folder)
    if env_id is None:
        if run is None:
            raise ValueError(f"--env must be given: there is no {RUN_FILE} beside {path}")
        if ":" in run.env and not trusted:
            raise ValueError(f"--env must be given: {folder / RUN_FILE} names {run.env}, which imports a module")
        env_id = run.env
    written_by, classes = saved_algorithm(file, trusted), {cls.__name__: cls for cls in REGISTRY.values()}
    if written_by not in classes:
        raise ValueError(f"MODEL must be saved by {', '.join(classes)}, got {path} by {shortened(written_by)}")
    return LoadedModel(classes[written_by].load(file, trusted=trusted), env_id)
