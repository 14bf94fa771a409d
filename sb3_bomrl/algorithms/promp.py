"""ProMP: proximal meta-policy search."""

from copy import deepcopy
from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from sb3_bomrl.algorithms import reports
from sb3_bomrl.algorithms.arguments import arguments_of, renamed_arguments
from sb3_bomrl.algorithms.gradient_adaptation import RENAMED, GradientAdaptation, batches_of
from sb3_bomrl.algorithms.outer import adam_step
from sb3_bomrl.checks import check_count, check_non_negative, check_range
from sb3_bomrl.core.params import stack
from sb3_bomrl.core.trust_region import OuterInfo
from sb3_bomrl.meta.gradients import MetaGradient, promp_meta_gradient
from sb3_bomrl.types import Batch, MetaBatch, Params


class ProMP(GradientAdaptation):
    r"""
    Proximal meta-policy search (Rothfuss et al., 2019, arXiv 1810.06784): MAML's gradient, of the likelihood ratio's
    low-variance curvature, of PPO's clipped objective after adaptation. It takes several Adam steps per meta-iteration
    on the same data, and a KL penalty with an adaptive weight keeps the policies that sampled them near.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"``, ``"TabularPolicy"``, or a class
    :param env: environment, VecEnv, or the id of a registered environment, from which a VecEnv of
        ``meta_batch_size`` · ``n_envs_per_task`` environments is made; environments with ``sample_tasks(n)`` and
        ``set_task(task)`` have tasks, any other is one task
    :param learning_rate: step size of Adam, or a schedule
    :param n_steps: steps per phase and environment
    :param meta_batch_size: tasks per meta-iteration; it must divide the number of environments, or be a multiple of it
    :param n_envs_per_task: environments per task where ``env`` is an id; ``None`` is 20 where they are stepped as a
        batch, and 4 where they are stepped one by one
    :param gamma: discount factor
    :param gae_lambda: λ of generalised advantage estimation
    :param inner_lr: α, step size of the policy-gradient steps, or a schedule, whose last value adapts after training
    :param inner_lr_decay: factor on α after the first adaptation step, while training and when testing
    :param inner_max_kl: an adaptation step of a larger mean KL(π_θk ‖ π_θk+1), in nats, is halved until it is within,
        for each task by itself; ``float("inf")`` for no limit
    :param n_adaptation_steps: K, policy-gradient steps per meta-iteration, each on data of its own
    :param clip_range: ε of the clipped outer objective, or a schedule
    :param n_epochs: outer Adam steps per meta-iteration, each on all data
    :param target_kl: KL of every inner step's sampling policy that the penalty aims at, in nats, or a schedule
    :param init_kl_coef: η at the start, weight of the penalty; it is halved where the KL is below ``target_kl`` / 1.5,
        doubled where it is above 1.5 · ``target_kl``. 0 switches it off
    :param normalize_advantage: scale the advantages to unit standard deviation, support data per task, query data over
        all tasks (so that the outer objective stays the mean return); they are centred per task in any case
    :param baseline: ``"linear"`` (features of the observation, fitted per task in closed form), ``"value_net"``
        (SB3's critic) or ``"auto"`` (linear unless the observation is large)
    :param discount_states: weight the t-th step of an episode by γ^t, as the equations do; by default all steps count
        equally, as in most deep RL
    :param max_grad_norm: largest gradient norm of Adam and of the value network
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

    clip_range: float | Schedule
    n_epochs: int
    target_kl: float | Schedule
    init_kl_coef: float

    scheduled: ClassVar[tuple[str, ...]] = ("inner_lr", "clip_range", "target_kl")

    @renamed_arguments(RENAMED)
    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 1e-3,
        n_steps: int = 200,
        meta_batch_size: int = 5,
        n_envs_per_task: int | None = None,
        gamma: float = 0.99,
        gae_lambda: float = 0.97,
        inner_lr: float | Schedule = 0.1,
        inner_lr_decay: float = 0.5,
        inner_max_kl: float = 1.0,
        n_adaptation_steps: int = 1,
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
        self.kl_coefs: list[float] = []
        super().__init__(**arguments_of(locals()), outer_step="adam")

    def _check_arguments(self) -> None:
        super()._check_arguments()
        check_count("n_epochs", self.n_epochs)
        check_non_negative("init_kl_coef", self.init_kl_coef)

    def _without_effect(self) -> dict[str, str]:
        reasons = super()._without_effect()
        return reasons if self.init_kl_coef else {**reasons, "target_kl": "with init_kl_coef=0"}

    def _setup_model(self) -> None:
        super()._setup_model()
        for value in self.kl_coefs:  # load() puts the saved ones there before
            check_range("kl_coefs", value, 0.0, float("inf"))
        if len(self.kl_coefs) != self.n_adaptation_steps:
            self.kl_coefs = [float(self.init_kl_coef)] * self.n_adaptation_steps

    def meta_gradient(self, data: MetaBatch) -> MetaGradient:
        return self._gradient(data.meta_params, data)[0]

    def _gradient(self, meta_params: Params, data: MetaBatch) -> tuple[MetaGradient, th.Tensor]:
        """At another φ than the one that sampled the data; with the KL of every inner step between the two."""
        step_size, clip_range, kl_coefs = self._step_size(), self._now("clip_range"), th.tensor(self.kl_coefs)

        def of_tasks(
            supports: tuple[Batch, ...], sampled_with: tuple[Params, ...], phi: Params, query: Batch
        ) -> tuple[MetaGradient, th.Tensor]:
            return promp_meta_gradient(self.actor, supports, sampled_with, phi, query, step_size, clip_range, kl_coefs)

        sampled_with = (data.meta_params, *(adaptation.params for adaptation in data.adapted[:-1]))
        trees = (batches_of(data.supports), sampled_with, meta_params, data.query.batch)
        gradient, kl = self.over_tasks(of_tasks, *trees, sized_by=data.query.batch)
        return gradient, kl.mean(0)

    def _outer_step(self, phi: Params, gradient: MetaGradient, data: MetaBatch) -> OuterInfo:
        target_kl = self._now("target_kl")
        self._update_learning_rate(self.policy.optimizer)
        moments = deepcopy(self.policy.optimizer.state_dict())
        try:
            for _ in range(self.n_epochs):
                info = adam_step(self.actor, phi, gradient.gradient, data.supports[0].batch, self.max_grad_norm)
                gradient, kl = self._gradient(stack(self.actor.params(), data.n_tasks), data)
                reports.check_finite_tasks("meta-gradient", gradient.task_norms, list(range(data.n_tasks)))
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
