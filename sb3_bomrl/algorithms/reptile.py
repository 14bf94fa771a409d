"""Reptile."""

from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from sb3_bomrl.algorithms.arguments import arguments_of, renamed_arguments
from sb3_bomrl.algorithms.gradient_adaptation import RENAMED, GradientAdaptation
from sb3_bomrl.algorithms.outer import OUTER_STEPS, mean_kl
from sb3_bomrl.checks import check_range
from sb3_bomrl.core.trust_region import OuterInfo
from sb3_bomrl.meta.gradients import MetaGradient, reptile_meta_gradient
from sb3_bomrl.types import Batch, MetaBatch, Params


class Reptile(GradientAdaptation):
    r"""
    Reptile (Nichol et al., 2018, arXiv 1803.02999): move φ towards where K ≥ 2 policy-gradient steps lead,
    φ + ε (θ_K − φ). It differentiates nothing twice.

    The last inner step is taken on the post-adaptation data, so that none are collected for the report alone.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"``, ``"TabularPolicy"``, or a class
    :param env: environment, VecEnv, or the id of a registered environment, from which a VecEnv of
        ``meta_batch_size`` · ``n_envs_per_task`` environments is made; environments with ``sample_tasks(n)`` and
        ``set_task(task)`` have tasks, any other is one task
    :param learning_rate: step size of ``outer_step="adam"`` and of the value network, or a schedule
    :param n_steps: steps per phase and environment
    :param meta_batch_size: tasks per meta-iteration; it must divide the number of environments, or be a multiple of it
    :param n_envs_per_task: environments per task where ``env`` is an id; ``None`` is 20 where they are stepped as a
        batch, and 4 where they are stepped one by one
    :param gamma: discount factor
    :param gae_lambda: λ of generalised advantage estimation
    :param inner_lr: α, step size of the policy-gradient steps, or a schedule, whose last value adapts after training
    :param n_adaptation_steps: K ≥ 2, policy-gradient steps per meta-iteration, each on data of its own; with K = 1 it
        would be multi-task training without adaptation
    :param interpolation: ε in (0, 1], or a schedule of such, of ``outer_step="interpolation"``
    :param normalize_advantage: scale the advantages to unit standard deviation, support data per task, query data over
        all tasks (so that the outer objective stays the mean return); they are centred per task in any case
    :param baseline: ``"linear"`` (features of the observation, fitted per task in closed form), ``"value_net"``
        (SB3's critic) or ``"auto"`` (linear unless the observation is large)
    :param discount_states: weight the t-th step of an episode by γ^t, as the equations do; by default all steps count
        equally, as in most deep RL
    :param outer_step: ``"interpolation"``, or the direction θ_K − φ taken by ``"adam"`` or, in a KL radius, by
        ``"trpo"``
    :param max_kl: KL radius of ``"trpo"``, in nats, or a schedule
    :param cg_max_steps: conjugate-gradient iterations of ``"trpo"``
    :param cg_damping: damping of the Fisher matrix in ``"trpo"``
    :param sub_sampling_factor: estimate the Fisher matrix of ``"trpo"`` from one state in this many, as sb3-contrib's
        TRPO does; the KL is checked on all
    :param max_grad_norm: largest gradient norm of ``"adam"`` and of the value network
    :param n_critic_updates: passes over the support data per meta-iteration (``baseline="value_net"``)
    :param batch_size: minibatch size of the value network's regression
    :param tasks_per_chunk: tasks that the learning phase works on at once; ``None`` chooses by the size of the network
        and the data
    :param n_rollout_threads: torch threads while rollouts run; the learning phase has those of
        ``torch.set_num_threads``
    :param rollout_buffer_class: rollout buffer class; chosen by the observation space if not given
    :param rollout_buffer_kwargs: keyword arguments of the rollout buffer
    :param stats_window_size: episodes that ``rollout/ep_rew_mean`` averages over
    :param tensorboard_log: log location for TensorBoard
    :param policy_kwargs: keyword arguments of the policy
    :param verbose: 0 no output, 1 info, 2 debug
    :param seed: seed of the pseudo-random generators
    :param device: device of the networks
    :param _init_setup_model: build the network at creation
    """

    interpolation: float | Schedule

    outer_steps: ClassVar[tuple[str, ...]] = ("interpolation", *OUTER_STEPS)
    scheduled: ClassVar[tuple[str, ...]] = (*GradientAdaptation.scheduled, "interpolation")

    @renamed_arguments(RENAMED)
    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 3e-4,
        n_steps: int = 200,
        meta_batch_size: int = 5,
        n_envs_per_task: int | None = None,
        gamma: float = 0.99,
        gae_lambda: float = 0.97,
        inner_lr: float | Schedule = 0.1,
        n_adaptation_steps: int = 5,
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
        tasks_per_chunk: int | None = None,
        n_rollout_threads: int = 1,
        rollout_buffer_class: type[RolloutBuffer] | None = None,
        rollout_buffer_kwargs: dict[str, Any] | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        super().__init__(**arguments_of(locals()))

    def _check_arguments(self) -> None:
        super()._check_arguments()
        if not callable(self.interpolation):
            check_range("interpolation", self.interpolation, 0.0, 1.0)
        if self.n_adaptation_steps < 2:
            raise ValueError(f"n_adaptation_steps must be at least 2 for Reptile, got {self.n_adaptation_steps!r}")

    def _without_effect(self) -> dict[str, str]:
        reasons = super()._without_effect()
        if self.outer_step != "interpolation":
            reasons["interpolation"] = f"with outer_step={self.outer_step!r}"
        return reasons

    @property
    def n_support_phases(self) -> int:
        """One per inner step but the last, which is taken on the query data."""
        return self.n_adaptation_steps - 1

    def meta_gradient(self, data: MetaBatch) -> MetaGradient:
        last = self.experience(data.query.rollout).batch  # advantages on the task's own scale, as in every inner step
        step_size = self._step_size()

        def of_tasks(batch: Batch, phi: Params, theta: Params) -> MetaGradient:
            return reptile_meta_gradient(self.actor, [batch], phi, theta, step_size)

        return self.over_tasks(of_tasks, last, data.meta_params, data.adapted_params, sized_by=last)

    def _outer_step(self, phi: Params, gradient: MetaGradient, data: MetaBatch) -> OuterInfo:
        if self.outer_step != "interpolation":
            return super()._outer_step(phi, gradient, data)
        epsilon, direction = self._now("interpolation"), gradient.gradient
        check_range("interpolation", epsilon, 0.0, 1.0)
        new = {name: value + epsilon * direction[name] for name, value in phi.items()}
        self.actor.load_params(new)
        with th.no_grad():
            kl = float(mean_kl(self.actor, phi, data.supports[0].batch)(new))
        return OuterInfo(kl, float("nan"), 0, True, float("nan"))
