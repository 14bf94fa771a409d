"""rl_zoo3's evaluations, of what a meta-policy adapts to instead of the meta-policy."""

from typing import Any

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from sb3_bomrl.algorithms.evaluation import evaluate_adaptation
from sb3_bomrl.callbacks.adaptation import AdaptationCallback


def adaptation_eval_callback(
    eval_env: VecEnv,
    callback_on_new_best: BaseCallback | None,
    best_model_save_path: str,
    n_eval_episodes: int,
    log_path: str,
    eval_freq: int,
    deterministic: bool,
) -> AdaptationCallback:
    """
    What rl_zoo3's ``train`` evaluates with, in place of SB3's ``EvalCallback``: the return after one adaptation.

    :param eval_env: environment for testing
    :param callback_on_new_best: called at a new best
    :param best_model_save_path: folder for the best model
    :param n_eval_episodes: episodes per task, to adapt on and to score
    :param log_path: folder for ``evaluations.npz``
    :param eval_freq: calls between evaluations
    :param deterministic: score the most probable actions
    :return: the callback
    """
    return AdaptationCallback(
        eval_env,
        n_adaptation_steps=1,
        n_episodes=n_eval_episodes,
        n_eval_episodes=n_eval_episodes,
        eval_freq=eval_freq,
        callback_on_new_best=callback_on_new_best,
        log_path=log_path,
        best_model_save_path=best_model_save_path,
        deterministic=deterministic,
    )


class AdaptationTrialCallback(BaseCallback):
    """
    What rl_zoo3's hyperparameter search evaluates and prunes by: mean return on the test tasks after one adaptation.

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
