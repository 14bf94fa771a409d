"""MAML and its first-order form."""

from typing import Any

import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from sb3_bomrl.algorithms.arguments import arguments_of, renamed_arguments
from sb3_bomrl.algorithms.gradient_adaptation import RENAMED, GradientAdaptation, batches_of
from sb3_bomrl.checks import check_choice
from sb3_bomrl.core.surrogates import POLICY_GRADIENT_SURROGATES
from sb3_bomrl.meta.gradients import MetaGradient, fomaml_meta_gradient, maml_meta_gradient
from sb3_bomrl.types import Batch, MetaBatch, Params


class MAML(GradientAdaptation):
    r"""
    Model-agnostic meta-learning (Finn et al., 2017, arXiv 1703.03400): differentiate the return after K policy-gradient
    steps through those steps. With the default ``outer_step="trpo"`` it is MAML-TRPO.

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
    :param inner_lr_decay: factor on α after the first adaptation step, while training and when testing
    :param inner_max_kl: an adaptation step of a larger mean KL(π_θk ‖ π_θk+1), in nats, is halved until it is within,
        for each task by itself; ``float("inf")`` for no limit
    :param n_adaptation_steps: K, policy-gradient steps per meta-iteration, each on data of its own
    :param surrogate: what the inner steps differentiate, ``"linear"``, the likelihood ratio, whose Hessian is the
        low-variance-curvature estimate of ∇²J, or ``"log"``, the log-likelihood. The steps are the same, their
        derivatives are not
    :param normalize_advantage: scale the advantages to unit standard deviation, support data per task, query data over
        all tasks (so that the outer objective stays the mean return); they are centred per task in any case
    :param baseline: ``"linear"`` (features of the observation, fitted per task in closed form), ``"value_net"``
        (SB3's critic) or ``"auto"`` (linear unless the observation is large)
    :param discount_states: weight the t-th step of an episode by γ^t, as the equations do; by default all steps count
        equally, as in most deep RL
    :param outer_step: ``"trpo"`` (natural gradient in a KL radius) or ``"adam"`` (the policy's optimiser)
    :param trust_region: what ``max_kl`` bounds in ``"trpo"``: ``"adapted"``, the mean KL(π_θ' ‖ π_θ'_new) of the
        adapted policies at the query states, for which every candidate adapts to the support data anew, or ``"meta"``,
        the mean KL(π_φ ‖ π_φ_new) at the support states
    :param max_kl: KL radius of ``"trpo"``, in nats, or a schedule
    :param cg_max_steps: conjugate-gradient iterations of ``"trpo"``
    :param cg_damping: damping of the Fisher matrix in ``"trpo"``
    :param sub_sampling_factor: estimate the Fisher matrix of ``"trpo"`` from one state in this many, as sb3-contrib's
        TRPO does; the KL is checked on all
    :param line_search: also require of a step of ``"trpo"`` that adapting again from the new meta-policy improves the
        query surrogate
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

    surrogate: str

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
        inner_lr_decay: float = 0.5,
        inner_max_kl: float = 1.0,
        n_adaptation_steps: int = 1,
        surrogate: str = "linear",
        normalize_advantage: bool = True,
        baseline: str = "auto",
        discount_states: bool = False,
        outer_step: str = "trpo",
        trust_region: str = "adapted",
        max_kl: float | Schedule = 0.02,
        cg_max_steps: int = 10,
        cg_damping: float = 1e-3,
        sub_sampling_factor: int = 1,
        line_search: bool = False,
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
        check_choice("surrogate", self.surrogate, POLICY_GRADIENT_SURROGATES)

    def meta_gradient(self, data: MetaBatch) -> MetaGradient:
        step_size = self._step_size()

        def of_tasks(supports: tuple[Batch, ...], phi: Params, theta: Params, query: Batch) -> MetaGradient:
            return maml_meta_gradient(self.actor, supports, phi, theta, query, step_size, self.surrogate)

        trees = (batches_of(data.supports), data.meta_params, data.adapted_params, data.query.batch)
        return self.over_tasks(of_tasks, *trees, sized_by=data.query.batch)

    def supports_line_search(self) -> bool:
        return True


class FOMAML(GradientAdaptation):
    r"""
    First-order MAML (Finn et al., 2017, arXiv 1703.03400): the policy gradient after K inner steps, taken as it is, as
    if the steps did not depend on φ.

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
    :param inner_lr_decay: factor on α after the first adaptation step, while training and when testing
    :param inner_max_kl: an adaptation step of a larger mean KL(π_θk ‖ π_θk+1), in nats, is halved until it is within,
        for each task by itself; ``float("inf")`` for no limit
    :param n_adaptation_steps: K, policy-gradient steps per meta-iteration, each on data of its own
    :param normalize_advantage: scale the advantages to unit standard deviation, support data per task, query data over
        all tasks (so that the outer objective stays the mean return); they are centred per task in any case
    :param baseline: ``"linear"`` (features of the observation, fitted per task in closed form), ``"value_net"``
        (SB3's critic) or ``"auto"`` (linear unless the observation is large)
    :param discount_states: weight the t-th step of an episode by γ^t, as the equations do; by default all steps count
        equally, as in most deep RL
    :param outer_step: ``"trpo"`` (natural gradient in a KL radius) or ``"adam"`` (the policy's optimiser)
    :param trust_region: what ``max_kl`` bounds in ``"trpo"``: ``"adapted"``, the mean KL(π_θ' ‖ π_θ'_new) of the
        adapted policies at the query states, for which every candidate adapts to the support data anew, or ``"meta"``,
        the mean KL(π_φ ‖ π_φ_new) at the support states
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
        inner_lr_decay: float = 0.5,
        inner_max_kl: float = 1.0,
        n_adaptation_steps: int = 1,
        normalize_advantage: bool = True,
        baseline: str = "auto",
        discount_states: bool = False,
        outer_step: str = "trpo",
        trust_region: str = "adapted",
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

    def meta_gradient(self, data: MetaBatch) -> MetaGradient:
        def of_tasks(theta: Params, query: Batch) -> MetaGradient:
            return fomaml_meta_gradient(self.actor, theta, query)

        return self.over_tasks(of_tasks, data.adapted_params, data.query.batch, sized_by=data.query.batch)
