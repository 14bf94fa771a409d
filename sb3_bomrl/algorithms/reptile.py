"""Reptile."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from sb3_bomrl.algorithms.gradient_adaptation import GradientAdaptation
from sb3_bomrl.algorithms.outer import OUTER_STEPS, mean_kl
from sb3_bomrl.checks import check_range
from sb3_bomrl.core.trust_region import OuterInfo
from sb3_bomrl.meta.gradients import MetaGradient, reptile_meta_gradient
from sb3_bomrl.types import Adaptation, Experience, Params


class Reptile(GradientAdaptation):
    r"""
    Reptile (Nichol et al., 2018, arXiv 1803.02999): move φ towards where K ≥ 2 policy-gradient steps lead,
    φ + ε (θ_K − φ). It differentiates nothing twice.

    The last inner step is taken on the post-adaptation data, so that none are collected for the report alone.

    The parameters that are not listed here are :class:`~sb3_bomrl.algorithms.meta_algorithm.MetaAlgorithm`'s.

    :param inner_lr: α, step size of the policy-gradient steps, or a schedule, whose last value adapts after training
    :param n_inner_steps: K ≥ 2, policy-gradient steps per meta-iteration, each on data of its own; with K = 1 it would
        be multi-task training without adaptation
    :param interpolation: ε in (0, 1], or a schedule of such, of ``outer_step="interpolation"``
    :param outer_step: ``"interpolation"``, or the direction θ_K − φ taken by ``"adam"`` or, in a KL radius but without
        line search, by ``"trpo"``
    """

    outer_steps: ClassVar[tuple[str, ...]] = ("interpolation", *OUTER_STEPS)
    step_sizes: ClassVar[tuple[str, ...]] = (*GradientAdaptation.step_sizes, "interpolation")

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
        n_inner_steps: int = 5,
        interpolation: float | Schedule = 1.0,
        normalize_advantage: bool = True,
        baseline: str = "auto",
        discount_states: bool = False,
        outer_step: str = "interpolation",
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
        self.interpolation = interpolation
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
        if not callable(self.interpolation):
            check_range("interpolation", self.interpolation, 0.0, 1.0)
        if self.n_inner_steps < 2:
            raise ValueError(f"n_inner_steps must be at least 2 for Reptile, got {self.n_inner_steps!r}")

    @property
    def n_support_phases(self) -> int:
        """One per inner step but the last, which is taken on the query data."""
        return self.n_inner_steps - 1

    def meta_gradient(
        self,
        meta_params: Params,
        supports: Sequence[Experience],
        adapted: Sequence[Adaptation],
        query: Experience,
    ) -> MetaGradient:
        last = self._experience(query.rollout)  # advantages on the task's own scale, as in every inner step
        inner_lr = self._step_size("inner_lr")
        return reptile_meta_gradient(self.actor, [last.batch], meta_params, adapted[-1].params, inner_lr)

    def can_search(self) -> bool:
        return False

    def _outer_step(
        self,
        phi: Params,
        gradient: MetaGradient,
        supports: Sequence[Experience],
        adapted: Sequence[Adaptation],
        query: Experience,
    ) -> OuterInfo:
        if self.outer_step != "interpolation":
            return super()._outer_step(phi, gradient, supports, adapted, query)
        epsilon = self._step_size("interpolation")
        check_range("interpolation", epsilon, 0.0, 1.0)
        new = {name: value + epsilon * gradient.gradient[name] for name, value in phi.items()}
        self.actor.load_params(new)
        with th.no_grad():
            kl = float(mean_kl(self.actor, phi, supports[0].batch)(new))
        return OuterInfo(kl, float("nan"), 0, True, float("nan"))
