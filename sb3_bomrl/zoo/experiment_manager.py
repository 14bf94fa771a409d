"""rl_zoo3's experiment manager with our configuration files, schedules and evaluation. Imports rl_zoo3."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any
from unittest.mock import patch

from rl_zoo3 import exp_manager
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from sb3_bomrl.algorithms.evaluation import evaluate_adaptation
from sb3_bomrl.algorithms.registry import REGISTRY
from sb3_bomrl.callbacks.adaptation import AdaptationCallback, synchronize_normalizer
from sb3_bomrl.zoo.registry import config_path, with_schedules


class MetaExperimentManager(exp_manager.ExperimentManager):
    """
    rl_zoo3's experiment manager; for the algorithms of this package, evaluations score what the meta-policy adapts to.

    :param args: rl_zoo3's parsed arguments
    :param algo: name of the algorithm
    :param rest: further arguments of rl_zoo3's experiment manager
    :param kwargs: the same; ``config`` is the file in ``zoo_configs`` if not given
    """

    def __init__(self, args: Any, algo: str, *rest: Any, **kwargs: Any) -> None:
        if algo in REGISTRY and kwargs.get("config") is None:
            kwargs["config"] = str(config_path(algo))
        super().__init__(args, algo, *rest, **kwargs)

    def _preprocess_schedules(self, hyperparams: dict[str, Any]) -> dict[str, Any]:  # type: ignore[override]
        if self.algo not in REGISTRY:
            return super()._preprocess_schedules(hyperparams)
        return with_schedules(hyperparams, ("learning_rate", *REGISTRY[self.algo].scheduled))

    def create_callbacks(self) -> None:
        """Make the callbacks of a training run."""
        with self._our_evaluation():
            super().create_callbacks()

    def hyperparameters_optimization(self) -> None:
        """Search for hyperparameters."""
        with self._our_evaluation():
            super().hyperparameters_optimization()

    def _our_evaluation(self) -> AbstractContextManager[Any]:
        if self.algo not in REGISTRY:
            return nullcontext()
        return patch.multiple(exp_manager, EvalCallback=_adaptation_callback, TrialEvalCallback=AdaptationTrialCallback)


def _adaptation_callback(eval_env: VecEnv, n_eval_episodes: int, **kwargs: Any) -> AdaptationCallback:
    """The callback that scores one adaptation, by the arguments of SB3's EvalCallback."""
    return AdaptationCallback(
        eval_env, n_adaptation_steps=1, n_episodes=n_eval_episodes, n_eval_episodes=n_eval_episodes, **kwargs
    )


class AdaptationTrialCallback(BaseCallback):
    """
    Report the mean return on the test tasks after one adaptation to a trial of rl_zoo3's hyperparameter search.

    The parameters are those of rl_zoo3's ``TrialEvalCallback``.

    :param eval_env: environment for testing
    :param trial: Optuna's trial
    :param n_eval_episodes: episodes per task, to adapt on and to score
    :param eval_freq: calls between evaluations
    :param deterministic: score the most probable actions
    :param kwargs: not used
    """

    def __init__(
        self,
        eval_env: VecEnv,
        trial: Any,
        n_eval_episodes: int = 5,
        eval_freq: int = 10_000,
        deterministic: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.eval_env, self.trial = eval_env, trial
        self.n_eval_episodes, self.eval_freq, self.deterministic = n_eval_episodes, eval_freq, deterministic
        self.last_mean_reward = float("-inf")
        self.eval_idx = 0
        self.is_pruned = False

    def _on_step(self) -> bool:
        if self.n_calls % self.eval_freq != 0:
            return True
        synchronize_normalizer(self.model, self.eval_env)
        curve = evaluate_adaptation(
            self.model,  # type: ignore[arg-type]
            self.eval_env,
            n_adaptation_steps=1,
            n_episodes=self.n_eval_episodes,
            n_eval_episodes=self.n_eval_episodes,
            deterministic=self.deterministic,
        )
        self.last_mean_reward = float(curve.returns[-1].mean())
        self.eval_idx += 1
        self.trial.report(self.last_mean_reward, self.eval_idx)
        self.is_pruned = bool(self.trial.should_prune())
        return not self.is_pruned
