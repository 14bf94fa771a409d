"""ProMP: proximal meta-policy search."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from sb3_bomrl.algorithms import reports
from sb3_bomrl.algorithms.gradient_adaptation import GradientAdaptation
from sb3_bomrl.algorithms.outer import adam_step
from sb3_bomrl.checks import check_positive, check_range
from sb3_bomrl.core.params import stack
from sb3_bomrl.core.trust_region import OuterInfo
from sb3_bomrl.meta.gradients import MetaGradient, promp_meta_gradient
from sb3_bomrl.types import Adaptation, Experience, Params


class ProMP(GradientAdaptation):
    r"""
    Proximal meta-policy search (Rothfuss et al., 2019, arXiv 1810.06784): MAML's gradient, of the likelihood ratio's
    low-variance curvature, of PPO's clipped objective after adaptation. It takes several Adam steps per meta-iteration
    on the same data, and a KL penalty with an adaptive weight keeps the policies that sampled them near.

    The parameters that are not listed here are :class:`~sb3_bomrl.algorithms.meta_algorithm.MetaAlgorithm`'s.

    :param learning_rate: step size of Adam
    :param inner_lr: α, step size of the policy-gradient steps, or a schedule, whose last value adapts after training
    :param n_inner_steps: K, policy-gradient steps per meta-iteration, each on data of its own
    :param clip_range: ε of the clipped outer objective, or a schedule
    :param n_epochs: outer Adam steps per meta-iteration, each on all data
    :param target_kl: KL of every inner step's sampling policy that the penalty aims at, in nats, or a schedule
    :param init_kl_coef: η at the start, weight of the penalty; it is halved where the KL is below ``target_kl`` / 1.5,
        doubled where it is above 1.5 · ``target_kl``. 0 switches it off
    """

    step_sizes: ClassVar[tuple[str, ...]] = ("inner_lr", "clip_range", "target_kl")

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 1e-3,
        n_steps: int = 200,
        meta_batch_size: int = 5,
        n_envs_per_task: int = 20,
        gamma: float = 0.99,
        gae_lambda: float = 0.97,
        inner_lr: float | Schedule = 0.1,
        n_inner_steps: int = 1,
        clip_range: float | Schedule = 0.3,
        n_epochs: int = 5,
        target_kl: float | Schedule = 0.01,
        init_kl_coef: float = 5e-4,
        normalize_advantage: bool = True,
        baseline: str = "auto",
        discount_states: bool = False,
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
        self.clip_range = clip_range
        self.n_epochs = n_epochs
        self.target_kl = target_kl
        self.init_kl_coef = init_kl_coef
        self.kl_coefs: list[float] = []
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
            outer_step="adam",
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
        check_positive("n_epochs", self.n_epochs, integer=True)
        check_range("init_kl_coef", self.init_kl_coef, 0.0, float("inf"))

    def _setup_model(self) -> None:
        super()._setup_model()
        for value in self.kl_coefs:  # load() puts the saved ones there before
            check_range("kl_coefs", value, 0.0, float("inf"))
        if len(self.kl_coefs) != self.n_inner_steps:
            self.kl_coefs = [float(self.init_kl_coef)] * self.n_inner_steps

    def meta_gradient(
        self,
        meta_params: Params,
        supports: Sequence[Experience],
        adapted: Sequence[Adaptation],
        query: Experience,
    ) -> MetaGradient:
        gradient, _ = self._gradient(meta_params, meta_params, supports, adapted, query)
        return gradient

    def _gradient(
        self,
        meta_params: Params,
        sampling_params: Params,
        supports: Sequence[Experience],
        adapted: Sequence[Adaptation],
        query: Experience,
    ) -> tuple[MetaGradient, th.Tensor]:
        """At φ, on data that another φ sampled; with the KL of every inner step between the two."""
        sampled_with = [sampling_params, *(adaptation.params for adaptation in adapted[:-1])]
        return promp_meta_gradient(
            self.actor,
            self._batches(supports),
            sampled_with,
            meta_params,
            query.batch,
            self._step_size("inner_lr"),
            self._step_size("clip_range"),
            th.tensor(self.kl_coefs),
        )

    def _outer_step(
        self,
        phi: Params,
        gradient: MetaGradient,
        supports: Sequence[Experience],
        adapted: Sequence[Adaptation],
        query: Experience,
    ) -> OuterInfo:
        n_tasks = query.rollout.n_tasks
        sampled_with = stack(phi, n_tasks)
        target_kl = self._step_size("target_kl")
        self._update_learning_rate(self.policy.optimizer)
        moments = deepcopy(self.policy.optimizer.state_dict())
        try:
            for _ in range(self.n_epochs):
                info = adam_step(self.actor, phi, gradient.gradient, supports[0].batch, self.max_grad_norm)
                current = stack(self.actor.params(), n_tasks)
                gradient, kl = self._gradient(current, sampled_with, supports, adapted, query)
                reports.check_finite_tasks("meta-gradient", gradient.task_norms, list(range(n_tasks)))
        except FloatingPointError:
            self.actor.load_params(phi)
            self.policy.optimizer.load_state_dict(moments)
            raise
        self._adapt_kl_coefs(kl, target_kl)
        return info

    def _adapt_kl_coefs(self, kl: th.Tensor, target_kl: float) -> None:
        """Halve or double η of every inner step (as Schulman et al., 2017, Section 4)."""
        for number, value in enumerate(kl.tolist()):
            if value < target_kl / 1.5:
                self.kl_coefs[number] /= 2.0
            elif value > target_kl * 1.5:
                self.kl_coefs[number] *= 2.0
        self.logger.record("promp/kl", float(kl.mean()))
        self.logger.record("promp/kl_coef", sum(self.kl_coefs) / len(self.kl_coefs))
