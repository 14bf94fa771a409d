"""Stable-Baselines3's side of the meta-algorithms: arguments, set-up, environments, seeds."""

from typing import Any, ClassVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import (
    ActorCriticCnnPolicy,
    ActorCriticPolicy,
    BasePolicy,
    MultiInputActorCriticPolicy,
)
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.utils import check_for_correct_spaces
from stable_baselines3.common.vec_env import VecEnv

from sb3_bomrl.algorithms.outer import OUTER_STEPS
from sb3_bomrl.algorithms.runs import ResumableAlgorithm
from sb3_bomrl.checks import check_choice, check_positive, check_range, check_step_size, step_size
from sb3_bomrl.meta.batches import make_batch, merge_samples
from sb3_bomrl.policies.actor import Actor
from sb3_bomrl.policies.tabular import TabularPolicy
from sb3_bomrl.rollout.collector import RolloutCollector
from sb3_bomrl.rollout.estimation import BASELINES, AdvantageEstimator, default_baseline
from sb3_bomrl.rollout.normalization import FrozenNormalizer
from sb3_bomrl.rollout.tasks import split_in_waves
from sb3_bomrl.types import Batch, Experience, Rollout
from sb3_bomrl.vec_env import make_meta_vec_env


class MetaAlgorithmShell(ResumableAlgorithm):
    """
    What the meta-algorithms have in common with any SB3 algorithm: arguments, set-up, environments, seeds.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"``, ``"TabularPolicy"``, or a class
    :param env: environment, VecEnv, or the id of a registered environment, from which a VecEnv of
        ``meta_batch_size`` · ``n_envs_per_task`` environments is made; environments with ``sample_tasks(n)`` and
        ``set_task(task)`` have tasks, any other is one task
    :param learning_rate: step size of ``outer_step="adam"`` and of the value network
    :param n_steps: steps per phase and environment
    :param meta_batch_size: tasks per meta-iteration; it must divide the number of environments, or be a multiple of it
    :param n_envs_per_task: environments per task where ``env`` is an id
    :param gamma: discount factor
    :param gae_lambda: λ of generalised advantage estimation
    :param normalize_advantage: scale the advantages to unit standard deviation, support data per task, query data over
        all tasks (so that the outer objective stays the mean return); they are centred per task in any case
    :param baseline: ``"linear"`` (features of the observation, fitted per task in closed form), ``"value_net"``
        (SB3's critic) or ``"auto"`` (linear unless the observation is large)
    :param discount_states: weight the t-th step of an episode by γ^t, as the equations do; by default all steps count
        equally, as in most deep RL
    :param outer_step: ``"trpo"`` (natural gradient in a KL radius) or ``"adam"`` (the policy's optimiser)
    :param max_kl: KL radius of ``"trpo"``, in nats, or a schedule
    :param cg_max_steps: conjugate-gradient iterations of natural gradients (``"trpo"``, and the inner solver of that
        name)
    :param cg_damping: damping of the Fisher matrix in natural gradients
    :param sub_sampling_factor: estimate the Fisher matrix of ``"trpo"`` from one state in this many, as sb3-contrib's
        TRPO does; the KL is checked on all
    :param line_search: require that adapting again from the new meta-policy improves the query surrogate (``"trpo"``
        with a meta-gradient that is its gradient: BO-MRL's ``"implicit"`` and ``"unrolled"``, MAML's); else only the KL
        is checked
    :param max_grad_norm: largest gradient norm of ``"adam"`` and of the value network
    :param n_critic_updates: passes over the support data per meta-iteration (``baseline="value_net"``)
    :param batch_size: minibatch size of the value network's regression
    :param rollout_buffer_class: rollout buffer class; chosen by the observation space if not given
    :param rollout_buffer_kwargs: keyword arguments of the rollout buffer
    :param use_sde: not supported, must be ``False``
    :param stats_window_size: episodes that ``rollout/ep_rew_mean`` averages over
    :param tensorboard_log: log location for TensorBoard
    :param policy_kwargs: keyword arguments of the policy
    :param verbose: 0 no output, 1 info, 2 debug
    :param seed: seed of the pseudo-random generators
    :param device: device of the networks
    :param _init_setup_model: build the network at creation
    """

    tasks_per_chunk: int | None = None
    """How many tasks the learning phase works on at once; ``None`` chooses by the size of the network and the data."""

    n_rollout_threads: int = 1
    """Torch threads while rollouts run; the learning phase has those of ``torch.set_num_threads``."""

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": ActorCriticPolicy,
        "CnnPolicy": ActorCriticCnnPolicy,
        "MultiInputPolicy": MultiInputActorCriticPolicy,
        "TabularPolicy": TabularPolicy,
    }

    outer_steps: ClassVar[tuple[str, ...]] = OUTER_STEPS

    step_sizes: ClassVar[tuple[str, ...]] = ("max_kl",)
    """Arguments that are numbers above 0 or, as ``learning_rate`` in SB3, schedules of such."""

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
        self.meta_batch_size = meta_batch_size
        self.n_envs_per_task = n_envs_per_task
        self.normalize_advantage = normalize_advantage
        self.baseline = baseline
        self.discount_states = discount_states
        self.outer_step = outer_step
        self.max_kl = max_kl
        self.cg_max_steps = cg_max_steps
        self.cg_damping = cg_damping
        self.sub_sampling_factor = sub_sampling_factor
        self.line_search = line_search
        self.n_critic_updates = n_critic_updates
        self.batch_size = batch_size
        self.task_generator = np.random.default_rng(seed)
        self.n_meta_iterations = 0
        self._n_run_iterations = self._resume_from = 0
        self._iteration_hooks = []
        self._normalizer_statistics: dict[str, Any] | None = None
        if use_sde or (policy_kwargs or {}).get("use_sde"):
            raise ValueError("use_sde must be False, got True: the noise of gSDE is no function of the parameters")
        if isinstance(env, str):
            for name in ("meta_batch_size", "n_envs_per_task"):
                check_positive(name, getattr(self, name), integer=True)
            env = make_meta_vec_env(env, meta_batch_size * n_envs_per_task, seed=seed)
        super().__init__(
            policy,
            env,  # type: ignore[arg-type]
            learning_rate=learning_rate,
            n_steps=n_steps,
            gamma=gamma,
            gae_lambda=gae_lambda,
            ent_coef=0.0,
            vf_coef=1.0,
            max_grad_norm=max_grad_norm,
            use_sde=False,
            sde_sample_freq=-1,
            rollout_buffer_class=rollout_buffer_class,
            rollout_buffer_kwargs=rollout_buffer_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=_init_setup_model,
            supported_action_spaces=(spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary),
        )

    def _check_arguments(self) -> None:
        """Check every argument; subclasses add their own."""
        counts = ("n_steps", "meta_batch_size", "n_envs_per_task", "cg_max_steps", "n_critic_updates", "batch_size")
        for name in (*counts, "sub_sampling_factor", "n_rollout_threads"):
            check_positive(name, getattr(self, name), integer=True)
        if self.tasks_per_chunk is not None:
            check_positive("tasks_per_chunk", self.tasks_per_chunk, integer=True)
        for name in self.step_sizes:
            check_step_size(name, getattr(self, name))
        check_positive("max_grad_norm", self.max_grad_norm)
        check_range("gamma", self.gamma, 0.0, 1.0)
        check_range("gae_lambda", self.gae_lambda, 0.0, 1.0)
        check_range("cg_damping", self.cg_damping, 0.0, np.inf)
        check_choice("baseline", self.baseline, ("auto", *BASELINES))
        check_choice("outer_step", self.outer_step, self.outer_steps)

    def _setup_model(self) -> None:
        self._check_arguments()
        if self.env is not None:
            split_in_waves(self.meta_batch_size, self.env.num_envs)
        # seeded by the constructor, or set to its saved state by load(), which must outlast the seeding done here
        generator = self.task_generator
        super()._setup_model()
        self.task_generator = generator
        self.policy.set_training_mode(False)
        self.actor = Actor(self.policy)
        self._normalizer = FrozenNormalizer(None)

    def set_random_seed(self, seed: int | None = None) -> None:
        """
        Seed Python, NumPy, torch, the action space, the environments, and the generator that tasks, environment seeds
        and actions are drawn from.

        :param seed: seed; nothing happens if ``None``
        """
        super().set_random_seed(seed)
        if seed is not None:
            self.task_generator = np.random.default_rng(seed)

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """
        Replace the environment; unlike SB3's, the new one may have another number of environments.

        :param env: environment or VecEnv with the same spaces
        :param force_reset: reset it before training
        :raises ValueError: if the spaces differ, or ``meta_batch_size`` does not fit the number of environments
        """
        env = self._wrap_env(env, self.verbose)
        split_in_waves(self.meta_batch_size, env.num_envs)
        check_for_correct_spaces(env, self.observation_space, self.action_space)
        self.n_envs = env.num_envs
        super().set_env(env, force_reset)

    def _step_size(self, name: str) -> float:
        """One of :attr:`step_sizes` as it is now."""
        # training ends with a whole meta-iteration, beyond the budget where that is no multiple of one
        return step_size(name, getattr(self, name), max(self._current_progress_remaining, 0.0))

    def _resolved_baseline(self) -> str:
        return default_baseline(self.observation_space) if self.baseline == "auto" else self.baseline

    def make_collector(
        self, env: VecEnv, generator: np.random.Generator, normalizer: FrozenNormalizer | None = None
    ) -> RolloutCollector:
        """
        What plays this model's policies in an environment.

        :param env: VecEnv with the model's spaces
        :param generator: source of environment seeds and actions
        :param normalizer: gathers the statistics of a ``VecNormalize``; none are gathered if not given
        :return: the collector
        """
        estimate = AdvantageEstimator(self.actor, self.gamma, self.gae_lambda, self._resolved_baseline())
        return RolloutCollector(env, self.actor, generator, estimate, normalizer)

    def full_batch(self, rollout: Rollout, is_query: bool = False) -> Batch:
        """
        Every step of a rollout as one sample, for the learning phase.

        :param rollout: with advantages
        :param is_query: post-adaptation data, whose tasks share one scale of advantages
        :return: batch with n_samples = n_steps · n_envs_per_task
        """
        visitation_gamma = self.gamma if self.discount_states else 1.0
        return make_batch(rollout, self.actor, self.normalize_advantage, visitation_gamma, shared_scale=is_query)

    def _experience(self, rollout: Rollout, is_query: bool = False) -> Experience:
        batch = self.full_batch(rollout, is_query)
        if isinstance(self.policy, TabularPolicy):
            batch = merge_samples(batch, self.policy.n_actions)
        return Experience(rollout, batch)

    def _make_rollout_buffer(self) -> RolloutBuffer:
        assert self.rollout_buffer_class is not None
        return self.rollout_buffer_class(
            self.n_steps,
            self.observation_space,
            self.action_space,
            device=self.device,
            gamma=self.gamma,
            gae_lambda=self.gae_lambda,
            n_envs=self.n_envs,
            **self.rollout_buffer_kwargs,
        )
