"""The base of the meta-algorithms: the loop of the paper inside an SB3 algorithm."""

import inspect
from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import (
    ActorCriticCnnPolicy,
    ActorCriticPolicy,
    BasePolicy,
)
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule, TensorDict
from stable_baselines3.common.utils import check_for_correct_spaces
from stable_baselines3.common.vec_env import VecEnv

from sb3_bomrl.algorithms import reports
from sb3_bomrl.algorithms.adaptation import adapt_model
from sb3_bomrl.algorithms.arguments import (
    NO_SDE,
    check_construction,
    check_shared_arguments,
    make_arguments_plain,
    shared_arguments_without_effect,
    warn_of_one_task,
    warn_of_small_budget,
    warn_without_effect,
    with_new_names,
)
from sb3_bomrl.algorithms.outer import OUTER_STEPS, adam_step, fit_value_net, mean_adapted_kl, trpo_step
from sb3_bomrl.algorithms.run import IterationHook, Run, Stopwatch
from sb3_bomrl.checks import check_count, step_size
from sb3_bomrl.core.params import stack
from sb3_bomrl.core.threads import torch_threads
from sb3_bomrl.core.trust_region import OuterInfo, TrustRegion
from sb3_bomrl.meta.batches import make_batch, merge_samples, state_visitation
from sb3_bomrl.meta.chunks import over_tasks, task_chunks
from sb3_bomrl.meta.gradients import MetaGradient
from sb3_bomrl.meta.policy_gradient import query_surrogate
from sb3_bomrl.policies.actor import Actor
from sb3_bomrl.policies.extractors import update_normalizers
from sb3_bomrl.policies.normalized import NormalizedMlpPolicy, NormalizedMultiInputPolicy
from sb3_bomrl.policies.tabular import TabularPolicy
from sb3_bomrl.rollout.collector import RolloutCollector
from sb3_bomrl.rollout.estimation import AdvantageEstimator, default_baseline
from sb3_bomrl.rollout.normalization import FrozenNormalizer
from sb3_bomrl.rollout.steps import Hooks, Step, StopCollection
from sb3_bomrl.rollout.tasks import split_in_waves
from sb3_bomrl.rollout.workers import with_watched_workers
from sb3_bomrl.saving.model_file import Path
from sb3_bomrl.saving.save_load import checked_parameters, load_model, save_model
from sb3_bomrl.types import Adaptation, Batch, Experience, MetaBatch, Params, Rollout, Task
from sb3_bomrl.vec_env.make import check_no_vector_env, default_envs_per_task, make_meta_vec_env

SelfMetaAlgorithm = TypeVar("SelfMetaAlgorithm", bound="MetaAlgorithm")
Result = TypeVar("Result")


class MetaAlgorithm(OnPolicyAlgorithm):
    """
    Base of the gradient-based meta-RL algorithms.

    ``self.policy`` always holds the meta-policy; adapted policies act through functional calls and are never written
    into it while training, so SB3's callbacks see the meta-policy. A subclass supplies the lower level
    (:meth:`adapt_params`) and the upper level (:meth:`meta_gradient`).

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
        query surrogate; only for meta-gradients that are its gradient: BO-MRL's ``"implicit"`` and ``"unrolled"``,
        MAML's
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
    :param settings: arguments of the subclass, which become attributes; the class must annotate them
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": NormalizedMlpPolicy,
        "CnnPolicy": ActorCriticCnnPolicy,
        "MultiInputPolicy": NormalizedMultiInputPolicy,
        "TabularPolicy": TabularPolicy,
    }

    outer_steps: ClassVar[tuple[str, ...]] = OUTER_STEPS

    scheduled: ClassVar[tuple[str, ...]] = ("max_kl",)
    """Arguments that are numbers above 0 or, as ``learning_rate`` in SB3, schedules of such."""

    renamed: ClassVar[dict[str, str]] = {}
    """Old names of arguments -> their names."""

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
        normalize_advantage: bool = True,
        baseline: str = "auto",
        discount_states: bool = False,
        outer_step: str = "trpo",
        trust_region: str = "meta",
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
        **settings: Any,
    ) -> None:
        verbose = int(verbose) if isinstance(verbose, bool) else verbose  # as SB3 accepts it
        check_construction(
            type(self),
            policy=policy,
            policy_kwargs=policy_kwargs,
            rollout_buffer_kwargs=rollout_buffer_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=_init_setup_model,
        )
        for name, value in settings.items():
            own = type(self).__mro__[: type(self).__mro__.index(MetaAlgorithm)]
            if not any(name in inspect.get_annotations(base) for base in own):
                raise TypeError(
                    f"{type(self).__name__}.__init__() got an unexpected keyword argument {name!r}: a subclass must "
                    "annotate its own arguments in its body"
                )
            setattr(self, name, value)
        self.meta_batch_size = meta_batch_size
        self.n_envs_per_task = n_envs_per_task
        self.normalize_advantage = normalize_advantage
        self.baseline = baseline
        self.discount_states = discount_states
        self.outer_step = outer_step
        self.trust_region = trust_region
        self.max_kl = max_kl
        self.cg_max_steps = cg_max_steps
        self.cg_damping = cg_damping
        self.sub_sampling_factor = sub_sampling_factor
        self.line_search = line_search
        self.n_critic_updates = n_critic_updates
        self.batch_size = batch_size
        self.tasks_per_chunk = tasks_per_chunk
        self.n_rollout_threads = n_rollout_threads
        self.task_generator = np.random.default_rng(seed)
        self.n_meta_iterations = self._n_run_iterations = 0
        self._normalizer_statistics: dict[str, Any] | None = None
        self._run: Run | None = None
        if (policy_kwargs or {}).get("use_sde"):
            raise ValueError(NO_SDE)
        makes_env = isinstance(env, str)
        if isinstance(env, str):
            check_count("meta_batch_size", meta_batch_size)
            self.n_envs_per_task = default_envs_per_task(env) if n_envs_per_task is None else n_envs_per_task
            check_count("n_envs_per_task", self.n_envs_per_task)
            env = make_meta_vec_env(env, meta_batch_size * self.n_envs_per_task, seed=seed)
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
        if self.env is not None:
            warn_of_one_task(self.env)
            beside = {} if makes_env else {"n_envs_per_task": "beside an environment that is not an id"}
            warn_without_effect(self, {**self._without_effect(), **beside})

    def _check_arguments(self) -> None:
        """Check every argument; subclasses add their own."""
        check_shared_arguments(self)

    def _without_effect(self) -> dict[str, str]:
        """Arguments that do nothing with the others as they are, and why; subclasses add their own."""
        return shared_arguments_without_effect(self)

    def _setup_model(self) -> None:
        make_arguments_plain(self)
        self._check_arguments()
        if not hasattr(self, "observation_space"):
            raise ValueError("env must be an environment or the id of one, got None")
        if self.env is not None:
            split_in_waves(self.meta_batch_size, self.env.num_envs)
        # seeded by the constructor, or set to its saved state by load(), which must outlast the seeding done here
        generator = self.task_generator
        try:
            super()._setup_model()
        except MemoryError as error:
            raise ValueError(
                f"n_steps must be smaller, for a rollout to fit in memory, got {self.n_steps}: {error}"
            ) from error
        except TypeError as error:
            raise TypeError(f"policy_kwargs must fit {self.policy_class.__name__}: {error}") from error
        self.task_generator = generator
        self.policy.set_training_mode(False)
        self.actor = Actor(self.policy)

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
        warn_of_one_task(env)

    @staticmethod
    def _wrap_env(env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        """Make a VecEnv of an environment; Gymnasium's own vectorised environments are refused."""
        check_no_vector_env("env", env)
        return OnPolicyAlgorithm._wrap_env(env, verbose, monitor_wrapper)

    # ------------------------------------------------------------------ the lower level

    @abstractmethod
    def adapt_params(self, meta_params: Params, support: Experience) -> Adaptation:
        r"""
        Solve the lower level: adapt to every task of the support data.

        :param meta_params: φ, each of shape (n_tasks, \*shape)
        :param support: pre-adaptation data
        :return: θ' and the solver's report
        """

    def adapt_to(self, params: Params, support: Rollout, n_adapted: int = 0) -> Params:
        r"""
        Solve the lower level on a rollout.

        :param params: policy that collected the rollout, each of shape (n_tasks, \*shape)
        :param support: rollout of n_tasks tasks
        :param n_adapted: times that this policy had been adapted before
        :return: adapted parameters, same shapes
        :raises FloatingPointError: if a task's objective is not finite
        """
        adapted = self.adapt_params(params, self.experience(support, n_adapted))
        reports.check_finite_tasks("inner objective", adapted.objective, list(range(support.n_tasks)))
        return adapted.params

    def adapt(
        self: SelfMetaAlgorithm,
        env_or_task: Any,
        n_episodes: int = 20,
        n_adaptation_steps: int = 1,
        seed: int | None = None,
        max_episode_steps: int | None = None,
    ) -> SelfMetaAlgorithm:
        r"""
        Adapt the meta-policy to one task.

        Each adaptation step plays ``n_episodes`` episodes with the current policy and solves the lower level on them.
        The first starts from the meta-policy, each further one from the last result.

        :param env_or_task: environment or VecEnv that plays the task, or a task for the model's own environment
        :param n_episodes: episodes per adaptation step
        :param n_adaptation_steps: number of adaptation steps
        :param seed: of episodes and actions; drawn from the model's seed, or the system's entropy, if not given
        :param max_episode_steps: give up on an episode that is longer; by default on one that is longer than the
            environment's time limit or, where it has none, than 10,000 steps
        :return: a model of the same kind whose policy is the adapted one; this model is left as it is
        :raises ValueError: if the task cannot be set, the spaces differ, or an episode does not end
        """
        return adapt_model(self, env_or_task, n_episodes, n_adaptation_steps, seed, max_episode_steps)

    # ------------------------------------------------------------------ the upper level

    @property
    def n_support_phases(self) -> int:
        """Adaptations per meta-iteration, each to data of its own; 1 unless a method says otherwise."""
        return 1

    @abstractmethod
    def meta_gradient(self, data: MetaBatch) -> MetaGradient:
        """
        Compute the upper level: the gradient of the post-adaptation return with respect to φ.

        :param data: what the meta-iteration has collected, and the adaptations to it
        :return: gradient of every task, and reports
        """

    def adapt_again(self, phi: Params, data: MetaBatch) -> Params:
        r"""
        Adapt another meta-policy to the data that a meta-iteration has collected.

        :param phi: another φ, each of shape \*shape
        :param data: what the meta-iteration has collected
        :return: adapted parameters, each of shape (n_tasks, \*shape)
        """
        params = stack(phi, data.n_tasks)
        for support in data.supports:
            params = self.adapt_params(params, support).params
        return params

    def supports_line_search(self) -> bool:
        """
        Return whether :meth:`outer_improvement` is what :meth:`meta_gradient` is the gradient of.

        :return: by default false
        """
        return False

    def outer_improvement(self, phi: Params, data: MetaBatch) -> float:
        r"""
        Compute the gain of the query surrogate when the same data are adapted to again from another meta-policy.

        :param phi: candidate φ, each of shape \*shape
        :param data: what the meta-iteration has collected
        :return: mean gain over tasks
        """
        params, query = self.adapt_again(phi, data), data.query.batch
        where_sampled = (query.weights * query.advantages).sum(-1)  # 0 only where all weights are equal
        with th.no_grad():
            return float((query_surrogate(self.actor, query, params) - where_sampled).mean())

    def over_tasks(self, function: Callable[..., Result], *trees: Any, sized_by: Batch) -> Result:
        """
        Call a function on chunks of tasks, see :func:`~sb3_bomrl.meta.chunks.over_tasks`.

        :param function: takes as many trees of tensors as are given, and returns a tree
        :param trees: with a leading task axis
        :param sized_by: the data that decide how large a chunk is
        :return: the function's tree for all tasks
        """
        return over_tasks(function, *trees, chunks=task_chunks(self.actor, sized_by, self.tasks_per_chunk))

    # ------------------------------------------------------------------ the loop

    def learn(
        self: SelfMetaAlgorithm,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int | None = 1,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfMetaAlgorithm:
        """
        Meta-train.

        :param total_timesteps: environment steps, support and query together. As in SB3 it is a lower bound: the first
            meta-iteration is always finished, with a warning if the budget is less, a later one is given up if the
            budget ends between its phases.
        :param callback: called at every vectorised step, with the meta-policy in ``model.policy``
        :param log_interval: meta-iterations between logs, ``None`` for no logs
        :param tb_log_name: name of the run for TensorBoard; the class's name by default
        :param reset_num_timesteps: start counting from 0
        :param progress_bar: show a progress bar
        :return: the trained model
        :raises FloatingPointError: if a parameter, observation, reward, loss or gradient is not finite; the
            meta-parameters are then those of the last complete iteration
        :raises ValueError: if the model has no environment, or ``meta_batch_size`` does not fit its number of them
        :raises RuntimeError: if it runs already, as in a callback
        """
        return self._learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)

    def resume(
        self: SelfMetaAlgorithm,
        callback: MaybeCallback = None,
        log_interval: int | None = 1,
        tb_log_name: str | None = None,
        progress_bar: bool = False,
    ) -> SelfMetaAlgorithm:
        """
        Go on with the run of ``learn`` that this model was saved in, to the total of environment steps it was given.

        From a file that was saved between two meta-iterations, as by :class:`~sb3_bomrl.ExactCheckpointCallback`, the
        run ends as if it had not been interrupted.

        :param callback: as in ``learn``
        :param log_interval: as in ``learn``
        :param tb_log_name: as in ``learn``
        :param progress_bar: as in ``learn``
        :return: the trained model; at once if the run was complete
        """
        left = self._total_timesteps - self.num_timesteps
        if left <= 0:
            return self
        return self._learn(left, callback, log_interval, tb_log_name, False, progress_bar, self._n_run_iterations)

    @with_watched_workers
    def _learn(
        self: SelfMetaAlgorithm,
        total_timesteps: int,
        callback: MaybeCallback,
        log_interval: int | None,
        tb_log_name: str | None,
        reset_num_timesteps: bool,
        progress_bar: bool,
        n_done: int = 0,
    ) -> SelfMetaAlgorithm:
        """Run meta-iterations until the budget ends, after ``n_done`` that an interrupted run has finished."""
        if self.env is None:
            raise ValueError("env must be set before learn(), got None: use set_env(env), or load(path, env=env)")
        if self._run is not None:
            raise RuntimeError(
                "learn() must not be called while it runs, as in a callback: return False there to end the run, or use "
                "another model"
            )
        n_at_once, _ = split_in_waves(self.meta_batch_size, self.env.num_envs)
        if n_done == 0:
            phase = self.n_steps * self.env.num_envs * (self.meta_batch_size // n_at_once)
            warn_of_small_budget(total_timesteps, phase * (self.n_support_phases + 1))
        name = type(self).__name__ if tb_log_name is None else tb_log_name
        normalizer = FrozenNormalizer(self.get_vec_normalize_env())
        normalizer.freeze()  # the reset in _setup_learn is no data
        try:
            total_timesteps, callback = self._setup_learn(
                total_timesteps, callback, reset_num_timesteps, name, progress_bar
            )
        finally:
            normalizer.release()
        collector = self.make_collector(self.env, self.task_generator, normalizer)
        run = self._run = Run(self.env, callback, collector, normalizer)
        if self.rollout_buffer.n_envs != self.n_envs:
            self.rollout_buffer = self._make_rollout_buffer()
        if total_timesteps > 0:
            self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
        iteration = self._n_run_iterations = n_done
        try:
            callback.on_training_start(locals(), globals())
            while self.num_timesteps < total_timesteps:
                complete = self._meta_iteration(run, must_finish=iteration == 0)
                if not complete:
                    break
                iteration += 1
                self._n_run_iterations = iteration
                self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
                if log_interval is not None and iteration % log_interval == 0:
                    self.dump_logs(iteration)
                if not run.goes_on():
                    break
        except StopCollection:
            pass
        finally:
            self._run = None
            run.end()
        callback.on_training_end()
        return self

    def _meta_iteration(self, run: Run, must_finish: bool) -> bool:
        """Do one iteration of the practical algorithm; returns whether it was finished within the budget."""
        watch = Stopwatch()
        run.normalizer.freeze()
        tasks = run.sample_tasks(self.meta_batch_size, self.task_generator)
        reports.check_finite_params(self.policy)
        phi = self.actor.params()
        meta_params = stack(phi, len(tasks))

        params, supports, adapted = meta_params, list[Experience](), list[Adaptation]()
        for phase in range(self.n_support_phases):
            with watch("rollout"):
                supports.append(self._collect(run, tasks, params, phase))  # pre-adaptation
            if self.num_timesteps >= self._total_timesteps and not must_finish:
                return False
            with watch("adapt"):
                self._before_adaptation(params, supports[-1])
                adapted.append(self.adapt_params(params, supports[-1]))  # lower level
            reports.check_finite_tasks("inner objective", adapted[-1].objective, tasks)
            params = adapted[-1].params
        with watch("rollout"):
            query = self._collect(run, tasks, params, self.n_support_phases)  # post-adaptation
        data = MetaBatch(meta_params, tuple(supports), tuple(adapted), query)
        with watch("meta_gradient"):
            gradient = self.meta_gradient(data)  # upper level
        reports.check_finite_tasks("meta-gradient", gradient.task_norms, tasks)
        with watch("outer"):
            outer = self._outer_step(phi, gradient, data)
            try:
                self._after_outer_step(data)
            except FloatingPointError:
                self.actor.load_params(phi)
                raise
            run.normalizer.commit()

        self.n_meta_iterations += 1
        self._n_updates += 1
        reports.record(self.logger, data, gradient, outer, self.env)
        run.watch.see(data, gradient)
        watch.record(self.logger)
        return True

    def _before_adaptation(self, params: Params, support: Experience) -> None:
        """Set what is learned from the first support data; adapting outside of training does not."""

    def _outer_step(self, phi: Params, gradient: MetaGradient, data: MetaBatch) -> OuterInfo:
        """Move the meta-policy, φ, along the meta-gradient."""
        batch = data.supports[0].batch
        if self.outer_step == "adam":
            self._update_learning_rate(self.policy.optimizer)
            return adam_step(self.actor, phi, gradient.gradient, batch, self.max_grad_norm)
        settings = TrustRegion(self._now("max_kl"), self.cg_max_steps, self.cg_damping)
        search = (lambda candidate: self.outer_improvement(candidate, data)) if self.line_search else None
        kl = self._adapted_kl(data) if self.trust_region == "adapted" else None
        return trpo_step(self.actor, phi, gradient.gradient, batch, settings, search, self.sub_sampling_factor, kl)

    def _adapted_kl(self, data: MetaBatch) -> Callable[[Params], th.Tensor]:
        """The KL that ``trust_region="adapted"`` bounds, as a function of φ."""
        return mean_adapted_kl(
            self.actor, lambda phi: self.adapt_again(phi, data), data.adapted_params, data.query.batch
        )

    def _after_outer_step(self, data: MetaBatch) -> None:
        """Move what is learned beside the meta-policy: the critic, and the statistics of normalisers."""
        if self.resolved_baseline() == "value_net":
            self._update_learning_rate(self.policy.optimizer)
            seed = int(self.task_generator.integers(2**63))
            rollout = data.supports[0].rollout
            loss = fit_value_net(self.actor, rollout, self.n_critic_updates, self.batch_size, self.max_grad_norm, seed)
            self.logger.record("train/value_loss", loss)
        for phase in (*data.supports, data.query):
            update_normalizers(self.policy, phase.rollout.observations)

    # ------------------------------------------------------------------ data

    def _collect(self, run: Run, tasks: list[Task], params: Params, phase: int) -> Experience:
        """Play all tasks, with SB3's callbacks and counters; phase 0 plays the meta-policy, the last one θ'."""

        def on_step(step: Step, number: int) -> bool:
            self.num_timesteps += run.env.num_envs
            run.callback.update_locals(
                {**step._asdict(), "self": self, "env": run.env, "n_steps": number, "tasks": tasks}
            )
            if phase == 0:
                self._update_info_buffer(step.infos, step.dones)
            with run.normalizer.shown_unfrozen():
                return bool(run.callback.on_step())

        def on_end(rollout: Rollout) -> None:
            run.callback.update_locals({"rollout_buffer": self.rollout_buffer, "rollout": rollout})
            run.callback.on_rollout_end()

        hooks = Hooks(run.callback.on_rollout_start, on_step, on_end)
        with torch_threads(self.n_rollout_threads):
            rollout = run.collector.collect(tasks, params, self.rollout_buffer, hooks)
        return self.experience(rollout, phase, is_query=phase == self.n_support_phases)

    def make_collector(
        self, env: VecEnv, generator: np.random.Generator, normalizer: FrozenNormalizer | None = None
    ) -> RolloutCollector:
        """
        Make what plays this model's policies in an environment.

        :param env: VecEnv with the model's spaces
        :param generator: source of environment seeds and actions
        :param normalizer: gathers the statistics of a ``VecNormalize``; none are gathered if not given
        :return: the collector
        """
        estimate = AdvantageEstimator(self.actor, self.gamma, self.gae_lambda, self.resolved_baseline())
        return RolloutCollector(env, self.actor, generator, estimate, normalizer)

    def experience(self, rollout: Rollout, n_adapted: int = 0, is_query: bool = False) -> Experience:
        """
        Prepare a rollout for the learning phase.

        :param rollout: with advantages
        :param n_adapted: times that the policy which acted had been adapted
        :param is_query: post-adaptation data, whose tasks share one scale of advantages
        :return: the rollout with its batches
        """
        visitation = self._state_visitation(rollout)
        steps = make_batch(rollout, self.actor, visitation, self.normalize_advantage, shared_scale=is_query)
        batch = merge_samples(steps, self.policy.n_actions) if isinstance(self.policy, TabularPolicy) else steps
        return Experience(rollout, steps, batch, n_adapted)

    def _state_visitation(self, rollout: Rollout) -> th.Tensor:
        return state_visitation(rollout, self.gamma if self.discount_states else 1.0)

    def resolved_baseline(self) -> str:
        """
        Return the baseline, with ``"auto"`` resolved by the observation space.

        :return: ``"linear"`` or ``"value_net"``
        """
        return default_baseline(self.observation_space) if self.baseline == "auto" else self.baseline

    def _now(self, name: str) -> float:
        """One of :attr:`scheduled` as it is now."""
        # training ends with a whole meta-iteration, beyond the budget where that is no multiple of one
        return step_size(name, getattr(self, name), max(self._current_progress_remaining, 0.0))

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

    def add_iteration_hook(self, hook: IterationHook) -> None:
        """
        Tell an object when a meta-iteration is complete; for callbacks, which call this when training starts.

        :param hook: kept until ``learn`` returns
        :raises RuntimeError: if ``learn`` is not running
        """
        if self._run is None:
            raise RuntimeError(
                "add_iteration_hook must be called while learn() runs, when training starts for instance"
            )
        self._run.hooks.append(hook)

    # ------------------------------------------------------------------ files

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "actor", "_run"]

    def save(self, path: Path, exclude: Iterable[str] | None = None, include: Iterable[str] | None = None) -> None:
        """
        Save the model, in SB3's zip format with a pickle-free form of every setting beside SB3's pickles.

        A path is written under a temporary name and renamed, so that an interrupted save leaves the old file.

        :param path: file name (``.zip`` is added if it has no suffix) or binary file
        :param exclude: attributes to leave out beside the default ones
        :param include: attributes to put in although they are left out by default
        :raises FloatingPointError: if a parameter is not finite: nothing is written then
        :raises OSError: if the file cannot be written; one that was there before is then as it was
        """
        save_model(self, path, lambda buffer: OnPolicyAlgorithm.save(self, buffer, exclude, include))

    @classmethod
    def load(
        cls: type[SelfMetaAlgorithm],
        path: Path,
        env: GymEnv | None = None,
        device: th.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        trusted: bool = True,
        **kwargs: Any,
    ) -> SelfMetaAlgorithm:
        """
        Load a model.

        With ``trusted=False`` nothing in the file is unpickled or imported, and whatever is not known to belong to a
        model is refused. By default, as in SB3, objects of the user's own classes are unpickled, which runs code from
        the file: only load files you trust that way.

        :param path: file name (``.zip`` may be left out) or binary file
        :param env: environment to go on with; may have another number of environments than the saved one
        :param device: device for the parameters
        :param custom_objects: replacements for saved settings
        :param print_system_info: print the saved and the current system
        :param force_reset: reset the environment before training
        :param trusted: unpickle what has no other form in the file. Where it is false, ``tensorboard_log`` is not taken
            from the file either
        :param kwargs: attributes to change
        :return: the model
        :raises FileNotFoundError: if there is no such file
        :raises ValueError: if the file is no whole zip archive, was written by another algorithm, does not fit the
            environment's spaces, or holds what ``trusted=False`` refuses
        """
        load, kwargs = super().load, with_new_names(kwargs, cls.renamed)
        custom_objects = with_new_names(custom_objects or {}, cls.renamed)
        return load_model(cls, load, path, env, device, custom_objects, print_system_info, force_reset, trusted, kwargs)

    @classmethod
    def load_safely(
        cls: type[SelfMetaAlgorithm], path: Path, env: GymEnv | None = None, **kwargs: Any
    ) -> SelfMetaAlgorithm:
        """
        Load a model from a file of unknown origin: :meth:`load` with ``trusted=False``.

        :param path: file name (``.zip`` may be left out) or binary file
        :param env: environment to go on with
        :param kwargs: further arguments of :meth:`load`
        :return: the model
        :raises ValueError: as :meth:`load`
        """
        return cls.load(path, env, trusted=False, **kwargs)

    def set_parameters(
        self, load_path_or_dict: str | TensorDict, exact_match: bool = True, device: th.device | str = "auto"
    ) -> None:
        """
        Load weights and the optimiser's state, as SB3 does, if they are finite and of the right shapes.

        :param load_path_or_dict: saved model, or state dictionaries by name
        :param exact_match: require every part and every weight
        :param device: device for the weights
        :raises ValueError: for a weight that is not finite, or an optimiser's state of another model
        :raises RuntimeError: for weights of another model
        """
        super().set_parameters(checked_parameters(self, load_path_or_dict, exact_match, device), exact_match, device)
