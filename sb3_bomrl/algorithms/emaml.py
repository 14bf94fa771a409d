"""E-MAML: MAML with credit to what was sampled before adapting."""

from collections.abc import Sequence
from typing import Any

import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from sb3_bomrl.algorithms.gradient_adaptation import GradientAdaptation
from sb3_bomrl.checks import check_range
from sb3_bomrl.meta.gradients import MetaGradient, emaml_meta_gradient, leave_one_out_credit
from sb3_bomrl.types import Adaptation, Batch, Experience, Params


class EMAML(GradientAdaptation):
    r"""
    E-MAML (Stadie et al., 2018, arXiv 1803.01118; Al-Shedivat et al., 2018, arXiv 1710.03641): MAML's gradient, plus
    the score-function term for the support data having been sampled with φ. The term rewards exploration that makes the
    adaptation better. No line search of ``outer_step="trpo"`` can check it: only the KL holds.

    The parameters that are not listed here are :class:`~sb3_bomrl.algorithms.meta_algorithm.MetaAlgorithm`'s.

    :param inner_lr: α, step size of the policy-gradient steps, or a schedule, whose last value adapts after training
    :param n_inner_steps: K, policy-gradient steps per meta-iteration, each on data of its own
    :param credit_coef: weight of the score-function term; 1 makes the gradient unbiased, 0 leaves ``MAML``. The
        term sums over all support steps, so its variance grows with their number; the code published with ProMP
        averages instead, which is 1 / (support steps per task)
    """

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 3e-4,
        n_steps: int = 200,
        meta_batch_size: int = 5,
        n_envs_per_task: int = 20,
        gamma: float = 0.99,
        gae_lambda: float = 0.97,
        inner_lr: float | Schedule = 0.1,
        n_inner_steps: int = 1,
        credit_coef: float = 1.0,
        normalize_advantage: bool = True,
        baseline: str = "auto",
        discount_states: bool = False,
        outer_step: str = "trpo",
        max_kl: float | Schedule = 0.02,
        cg_max_steps: int = 10,
        cg_damping: float = 1e-3,
        sub_sampling_factor: int = 1,
        max_grad_norm: float = 0.5,
        n_critic_updates: int = 10,
        batch_size: int = 256,
        rollout_buffer_class: type[RolloutBuffer] | None = None,
        rollout_buffer_kwargs: dict[str, Any] | None = None,
        use_sde: bool = False,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        self.credit_coef = credit_coef
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,
            n_steps=n_steps,
            meta_batch_size=meta_batch_size,
            n_envs_per_task=n_envs_per_task,
            gamma=gamma,
            gae_lambda=gae_lambda,
            inner_lr=inner_lr,
            n_inner_steps=n_inner_steps,
            normalize_advantage=normalize_advantage,
            baseline=baseline,
            discount_states=discount_states,
            outer_step=outer_step,
            max_kl=max_kl,
            cg_max_steps=cg_max_steps,
            cg_damping=cg_damping,
            sub_sampling_factor=sub_sampling_factor,
            max_grad_norm=max_grad_norm,
            n_critic_updates=n_critic_updates,
            batch_size=batch_size,
            rollout_buffer_class=rollout_buffer_class,
            rollout_buffer_kwargs=rollout_buffer_kwargs,
            use_sde=use_sde,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=_init_setup_model,
        )

    def _check_arguments(self) -> None:
        super()._check_arguments()
        check_range("credit_coef", self.credit_coef, 0.0, float("inf"))

    def meta_gradient(
        self,
        meta_params: Params,
        supports: Sequence[Experience],
        adapted: Sequence[Adaptation],
        query: Experience,
    ) -> MetaGradient:
        visitation_gamma = self.gamma if self.discount_states else 1.0
        credit = leave_one_out_credit(query.rollout, visitation_gamma, self.normalize_advantage)
        return emaml_meta_gradient(
            self.actor,
            self._batches(supports),
            [self._single_steps(support) for support in supports],
            meta_params,
            adapted[-1].params,
            query.batch,
            credit.to(query.batch.advantages),
            self.credit_coef,
            self._step_size("inner_lr"),
        )

    def _single_steps(self, support: Experience) -> Batch:
        """Every step that was sampled, each with weight 1."""
        batch = self.full_batch(support.rollout)
        return batch._replace(weights=support.rollout.mask.flatten(1, 2).to(batch.weights))

    def can_search(self) -> bool:
        return False
