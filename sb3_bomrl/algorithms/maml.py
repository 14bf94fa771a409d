"""MAML and its first-order form."""

from collections.abc import Sequence
from typing import Any

import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from sb3_bomrl.algorithms.gradient_adaptation import GradientAdaptation
from sb3_bomrl.checks import check_choice
from sb3_bomrl.core.surrogates import POLICY_GRADIENT_SURROGATES
from sb3_bomrl.meta.gradients import MetaGradient, maml_meta_gradient
from sb3_bomrl.types import Adaptation, Experience, Params


class MAML(GradientAdaptation):
    r"""
    Model-agnostic meta-learning (Finn et al., 2017, arXiv 1703.03400): differentiate the return after K policy-gradient
    steps through those steps. With the default ``outer_step="trpo"`` it is MAML-TRPO.

    The parameters that are not listed here are :class:`~sb3_bomrl.algorithms.meta_algorithm.MetaAlgorithm`'s.

    :param inner_lr: α, step size of the policy-gradient steps, or a schedule, whose last value adapts after training
    :param n_inner_steps: K, policy-gradient steps per meta-iteration, each on data of its own
    :param surrogate: what the inner steps differentiate, ``"linear"``, the likelihood ratio, whose Hessian is the
        low-variance-curvature estimate of ∇²J, or ``"log"``, the log-likelihood. The steps are the same, their
        derivatives are not
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
        surrogate: str = "linear",
        normalize_advantage: bool = True,
        baseline: str = "auto",
        discount_states: bool = False,
        outer_step: str = "trpo",
        max_kl: float | Schedule = 0.02,
        cg_max_steps: int = 10,
        cg_damping: float = 1e-3,
        sub_sampling_factor: int = 1,
        line_search: bool = True,
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
        self.surrogate = surrogate
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
        self.line_search = line_search

    def _check_arguments(self) -> None:
        super()._check_arguments()
        check_choice("surrogate", self.surrogate, POLICY_GRADIENT_SURROGATES)

    def meta_gradient(
        self,
        meta_params: Params,
        supports: Sequence[Experience],
        adapted: Sequence[Adaptation],
        query: Experience,
    ) -> MetaGradient:
        return maml_meta_gradient(
            self.actor,
            self._batches(supports),
            meta_params,
            adapted[-1].params,
            query.batch,
            self._step_size("inner_lr"),
            self.surrogate,
        )


class FOMAML(GradientAdaptation):
    r"""
    First-order MAML (Finn et al., 2017, arXiv 1703.03400): the policy gradient after K inner steps, taken as it is, as
    if the steps did not depend on φ. No line search of ``outer_step="trpo"`` can check it: only the KL holds.

    The parameters that are not listed here are :class:`~sb3_bomrl.algorithms.meta_algorithm.MetaAlgorithm`'s.

    :param inner_lr: α, step size of the policy-gradient steps, or a schedule, whose last value adapts after training
    :param n_inner_steps: K, policy-gradient steps per meta-iteration, each on data of its own
    """

    def meta_gradient(
        self,
        meta_params: Params,
        supports: Sequence[Experience],
        adapted: Sequence[Adaptation],
        query: Experience,
    ) -> MetaGradient:
        inner_lr = self._step_size("inner_lr")
        return maml_meta_gradient(
            self.actor, [], meta_params, adapted[-1].params, query.batch, inner_lr, first_order=True
        )

    def can_search(self) -> bool:
        return False
