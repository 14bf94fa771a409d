"""A callback that records the adaptation curve on held-out tasks while meta-training."""

import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback, EventCallback
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize

from sb3_bomrl.algorithms.evaluation import AdaptationCurve, evaluate_adaptation, write_curves
from sb3_bomrl.algorithms.meta_algorithm import MetaAlgorithm
from sb3_bomrl.saving.files import make_folder, write_atomically
from sb3_bomrl.types import Task


def synchronize_normalizer(model: Any, eval_env: GymEnv) -> None:
    """
    Give the statistics of the training environment's ``VecNormalize`` to that of another, as SB3's evaluation does.

    :param model: the model that trains
    :param eval_env: environment or VecEnv; nothing happens if either of the two has no ``VecNormalize``
    :raises ValueError: if one of the two normalises observations and the other does not
    """
    source = model.get_vec_normalize_env()
    target = unwrap_vec_normalize(eval_env) if isinstance(eval_env, VecEnv) else None
    if source is None or target is None:
        return
    if source.norm_obs != target.norm_obs:
        raise ValueError(
            f"eval_env must have norm_obs={source.norm_obs} as the training environment, got {target.norm_obs}"
        )
    if source.norm_obs:
        target.obs_rms = deepcopy(source.obs_rms)
    target.ret_rms = deepcopy(source.ret_rms)


class AdaptationCallback(EventCallback):
    """
    Adapt to held-out tasks every ``eval_freq`` calls and record the returns after 0 … K adaptations.

    SB3's ``EvalCallback`` scores the meta-policy; this one scores the policies that it adapts to. It also scores

    - the control, once: the meta-policy before training, adapted alike. It is the evaluation at step 0, and is neither
      a best model nor an event for ``callback_after_eval``. A run that goes on from a later step has none.
    - the meta-policy that training ends with, unless it has been scored already. An evaluation during a meta-iteration
      scores the meta-policy before its update, so that two evaluations may have the same number of steps. If it cannot
      be scored, as with an ``inner_lr`` that has fallen to 0, there is a warning.

    The records:

    - The logger gets ``meta/eval_return_0`` … ``meta/eval_return_K`` (means over tasks), ``eval/mean_reward`` (after
      K adaptations) and, once, ``meta/eval_control_0`` … ``meta/eval_control_K``.
    - ``evaluations.npz`` in ``log_path`` is read by SB3's and rl_zoo3's plotting scripts: ``timesteps``, ``results``
      and ``ep_lengths`` are those after K adaptations. It also holds ``adaptation_returns`` of shape (n_evaluations,
      K + 1, n_tasks, n_eval_episodes), ``adaptation_env_steps`` and ``tasks``.
    - ``adaptation.csv`` in ``log_path`` has one row per evaluation, task and number of adaptations, in the columns of
      :func:`~sb3_bomrl.algorithms.evaluation.write_curves`.

    A record that cannot be written, as on a full disk, gives a warning and is written with the next; training goes on.

    The environment steps of evaluations are not counted in ``num_timesteps``. A ``VecNormalize`` of ``eval_env`` gets
    the statistics of the training environment's; returns are those of the rewards before normalisation.

    :param eval_env: environment or VecEnv for testing, not the training environment
    :param tasks: held-out tasks; the environment's own ``test_tasks`` if not given
    :param n_adaptation_steps: K ≥ 0
    :param n_episodes: support episodes per task and adaptation
    :param n_eval_episodes: episodes per task that each policy is scored on
    :param eval_freq: calls of the callback (vectorised steps, as in SB3) between evaluations; 0 for the control and the
        last one only
    :param callback_on_new_best: called when the return after K adaptations is a new best
    :param callback_after_eval: called after every evaluation but the control
    :param log_path: folder for the records
    :param best_model_save_path: folder for ``best_model.zip``, by the return after K adaptations
    :param deterministic: score the most probable actions; by default they are sampled, as in training
    :param seed: of episodes and actions, the same for every evaluation
    :param max_episode_steps: as in :func:`~sb3_bomrl.evaluate_adaptation`
    :param verbose: 0 no output, 1 one line per evaluation
    :param control: score the meta-policy before training, if that starts at step 0
    """

    def __init__(
        self,
        eval_env: GymEnv,
        tasks: Sequence[Task] | None = None,
        n_adaptation_steps: int = 3,
        n_episodes: int = 20,
        n_eval_episodes: int = 20,
        eval_freq: int = 10_000,
        callback_on_new_best: BaseCallback | None = None,
        callback_after_eval: BaseCallback | None = None,
        log_path: str | None = None,
        best_model_save_path: str | None = None,
        deterministic: bool = False,
        seed: int | None = 0,
        verbose: int = 1,
        max_episode_steps: int | None = None,
        control: bool = True,
    ) -> None:
        super().__init__(callback_after_eval, verbose=verbose)
        self.callback_on_new_best = callback_on_new_best
        if callback_on_new_best is not None:
            callback_on_new_best.parent = self
        self.eval_env = eval_env
        self.tasks = tasks
        self.n_adaptation_steps = n_adaptation_steps
        self.n_episodes = n_episodes
        self.n_eval_episodes = n_eval_episodes
        self.eval_freq = eval_freq
        self.log_path = None if log_path is None else Path(log_path)
        self.best_model_save_path = None if best_model_save_path is None else Path(best_model_save_path)
        self.deterministic = deterministic
        self.seed = seed
        self.max_episode_steps = max_episode_steps
        self.control = control
        self.best_mean_reward = -np.inf
        self.last_mean_reward = -np.inf
        self.evaluations: list[tuple[int, AdaptationCurve]] = []
        self._scored_iteration: int | None = None

    def _init_callback(self) -> None:
        if not isinstance(self.model, MetaAlgorithm):
            raise ValueError(
                f"AdaptationCallback needs a MetaAlgorithm such as BOMRL, got {type(self.model).__name__}: "
                "use stable_baselines3's EvalCallback"
            )
        for folder in (self.log_path, self.best_model_save_path):
            if folder is not None:
                make_folder(folder)
        if self.callback_on_new_best is not None:
            self.callback_on_new_best.init_callback(self.model)

    def _on_training_start(self) -> None:
        super()._on_training_start()
        self._scored_iteration = None
        if self.control and self.num_timesteps == 0:
            self._record_means("meta/eval_control", "Before training (control)", self._evaluate())
            self.logger.dump(0)

    def _on_step(self) -> bool:
        is_due = self.eval_freq > 0 and self.n_calls % self.eval_freq == 0
        return self._score(f"Adaptation at {self.num_timesteps} steps") if is_due else True

    def _on_training_end(self) -> None:
        assert isinstance(self.model, MetaAlgorithm)
        if self._scored_iteration == self.model.n_meta_iterations:
            return
        try:
            self._score(f"After training, {self.num_timesteps} steps")
        except ValueError as error:  # an inner_lr that has fallen to 0, for one, cannot adapt
            warnings.warn(f"the trained meta-policy could not be scored: {error}", RuntimeWarning, stacklevel=2)

    def _score(self, label: str) -> bool:
        """Evaluate, tell the callbacks, and return whether training goes on."""
        self._record(label, self._evaluate())
        go_on = self._handle_new_best()
        if self.callback is not None:
            go_on = go_on and self._on_event()
        return go_on

    def _evaluate(self) -> AdaptationCurve:
        assert isinstance(self.model, MetaAlgorithm)
        synchronize_normalizer(self.model, self.eval_env)
        curve = evaluate_adaptation(
            self.model,
            self.eval_env,
            self.tasks,
            self.n_adaptation_steps,
            self.n_episodes,
            self.n_eval_episodes,
            self.deterministic,
            self.seed,
            max_episode_steps=self.max_episode_steps,
        )
        self._scored_iteration = self.model.n_meta_iterations
        self.evaluations.append((self.num_timesteps, curve._replace(params=[])))
        if self.log_path is not None:
            self._write(self.log_path)
        return curve

    def _record_means(self, name: str, label: str, curve: AdaptationCurve) -> None:
        means = curve.returns.mean((1, 2))
        for k, value in enumerate(means):
            self.logger.record(f"{name}_{k}", float(value))
        self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        if self.verbose >= 1:
            arrows = " -> ".join(f"{value:.1f}" for value in means)
            print(f"{label}, {len(curve.tasks)} tasks: {arrows}")

    def _record(self, label: str, curve: AdaptationCurve) -> None:
        self._record_means("meta/eval_return", label, curve)
        self.last_mean_reward = float(curve.returns[-1].mean())
        self.logger.record("eval/mean_reward", self.last_mean_reward)
        self.logger.record("eval/mean_ep_length", float(curve.lengths[-1].mean()))
        self.logger.dump(self.num_timesteps)

    def _handle_new_best(self) -> bool:
        if self.last_mean_reward <= self.best_mean_reward:
            return True
        self.best_mean_reward = self.last_mean_reward
        if self.best_model_save_path is not None:
            path = self.best_model_save_path / "best_model.zip"
            self._try(lambda: self.model.save(path))
        return True if self.callback_on_new_best is None else self.callback_on_new_best.on_step()

    def _try(self, write: Callable[[], None]) -> None:
        """Write a file; one that cannot be written does not end the training."""
        try:
            write()
        except OSError as error:
            warnings.warn(
                f"an evaluation could not be recorded ({error}): training goes on", RuntimeWarning, stacklevel=2
            )

    def _write(self, folder: Path) -> None:
        curves = [curve for _, curve in self.evaluations]
        arrays: dict[str, Any] = {
            "timesteps": np.array([timesteps for timesteps, _ in self.evaluations]),
            "results": np.stack([curve.returns[-1].flatten() for curve in curves]),
            "ep_lengths": np.stack([curve.lengths[-1].flatten() for curve in curves]),
            "adaptation_returns": np.stack([curve.returns for curve in curves]),
            "adaptation_env_steps": np.stack([curve.env_steps for curve in curves]),
            "tasks": np.array([repr(task) for task in curves[-1].tasks]),
        }
        self._try(lambda: write_atomically(folder / "evaluations.npz", lambda file: np.savez(file, **arrays)))
        self._try(lambda: write_curves(folder / "adaptation.csv", "timesteps", self.evaluations))

    def update_child_locals(self, locals_: dict[str, Any]) -> None:
        """
        Hand the training loop's variables to the callback after an evaluation.

        :param locals_: the variables
        """
        if self.callback is not None:
            self.callback.update_locals(locals_)
