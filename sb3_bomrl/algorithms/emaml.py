"""E-MAML: MAML with credit to what was sampled before adapting."""

from typing import Any

import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from sb3_bomrl.algorithms.arguments import arguments_of, renamed_arguments
from sb3_bomrl.algorithms.gradient_adaptation import RENAMED, GradientAdaptation, batches_of
from sb3_bomrl.checks import check_non_negative
from sb3_bomrl.meta.gradients import MetaGradient, emaml_meta_gradient, leave_one_out_credit
from sb3_bomrl.types import Batch, Experience, MetaBatch, Params


class EMAML(GradientAdaptation):
    r"""
    E-MAML (Stadie et al., 2018, arXiv 1803.01118; Al-Shedivat et al., 2018, arXiv 1710.03641): MAML's gradient, plus
    the score-function term for the support data having been sampled with φ. The term rewards exploration that makes the
    adaptation better.

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
    :param credit_coef: weight of the score-function term Σ_t ∇log π / √n, a sum over the n support steps of a task,
        whose variance does not depend on n. √n makes the gradient unbiased, 0 leaves ``MAML``, and 1/√n averages the
        log-probabilities as the code published with ProMP does
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

    credit_coef: float

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
        credit_coef: float = 1.0,
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

    def _check_arguments(self) -> None:
        super()._check_arguments()
        check_non_negative("credit_coef", self.credit_coef)

    def meta_gradient(self, data: MetaBatch) -> MetaGradient:
        rollout, query, step_size = data.query.rollout, data.query.batch, self._step_size()
        n_steps = sum(int(support.rollout.mask.sum()) for support in data.supports) / data.n_tasks
        weight = self.credit_coef / n_steps**0.5
        credit = leave_one_out_credit(rollout, self._state_visitation(rollout), self.normalize_advantage)

        def of_tasks(
            supports: tuple[Batch, ...],
            steps: tuple[Batch, ...],
            phi: Params,
            theta: Params,
            query: Batch,
            credit: th.Tensor,
        ) -> MetaGradient:
            return emaml_meta_gradient(self.actor, supports, steps, phi, theta, query, credit, weight, step_size)

        steps = tuple(_single_steps(support) for support in data.supports)
        trees = (batches_of(data.supports), steps, data.meta_params, data.adapted_params, query)
        return self.over_tasks(of_tasks, *trees, credit.to(query.advantages), sized_by=query)


def _single_steps(support: Experience) -> Batch:
    """Every step that was sampled, each with weight 1."""
    return support.steps._replace(weights=support.rollout.mask.flatten(1, 2).to(support.steps.weights))
