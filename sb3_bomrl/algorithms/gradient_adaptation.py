"""What the methods have in common that adapt by policy-gradient steps."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from sb3_bomrl.algorithms.meta_algorithm import MetaAlgorithm
from sb3_bomrl.checks import check_positive
from sb3_bomrl.meta.policy_gradient import policy_gradient_step
from sb3_bomrl.types import Adaptation, Batch, Experience, Params


class GradientAdaptation(MetaAlgorithm):
    r"""
    Base of MAML and its relatives: an adaptation is one policy-gradient step θ + α ∇J(θ).

    A meta-iteration takes ``n_inner_steps`` of them, each on fresh data of the policy before it, then plays the result.
    At test time every adaptation step of ``adapt`` and ``evaluate_adaptation`` is one such step.

    :param inner_lr: α, step size of the policy-gradient steps, or a schedule, whose last value adapts after training
    :param n_inner_steps: K, policy-gradient steps per meta-iteration, each on data of its own
    """

    step_sizes: ClassVar[tuple[str, ...]] = (*MetaAlgorithm.step_sizes, "inner_lr")

    surrogate: str = "linear"

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
        self.inner_lr = inner_lr
        self.n_inner_steps = n_inner_steps
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,
            n_steps=n_steps,
            meta_batch_size=meta_batch_size,
            n_envs_per_task=n_envs_per_task,
            gamma=gamma,
            gae_lambda=gae_lambda,
            normalize_advantage=normalize_advantage,
            baseline=baseline,
            discount_states=discount_states,
            outer_step=outer_step,
            max_kl=max_kl,
            cg_max_steps=cg_max_steps,
            cg_damping=cg_damping,
            sub_sampling_factor=sub_sampling_factor,
            line_search=False,
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
        check_positive("n_inner_steps", self.n_inner_steps, integer=True)

    @property
    def n_support_phases(self) -> int:
        """One per inner step."""
        return self.n_inner_steps

    def adapt_params(self, meta_params: Params, support: Experience) -> Adaptation:
        return policy_gradient_step(
            self.actor,
            support.batch,
            meta_params,
            self._step_size("inner_lr"),
            self.surrogate,
            tasks_per_chunk=self.tasks_per_chunk,
        )

    @staticmethod
    def _batches(phases: Sequence[Experience]) -> list[Batch]:
        return [phase.batch for phase in phases]
