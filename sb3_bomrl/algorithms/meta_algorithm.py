"""The base of the meta-algorithms: the loop of the paper."""

from abc import abstractmethod
from copy import copy, deepcopy
from typing import Any, TypeVar

import numpy as np
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import MaybeCallback

from sb3_bomrl.algorithms import reports
from sb3_bomrl.algorithms.outer import adam_step, fit_value_net, trpo_step
from sb3_bomrl.algorithms.resources import Stopwatch, rollout_threads
from sb3_bomrl.algorithms.sb3_shell import MetaAlgorithmShell
from sb3_bomrl.algorithms.task_env import as_task_env
from sb3_bomrl.algorithms.validation import check_positive, step_size
from sb3_bomrl.core.outer_step import OuterInfo, TrustRegion
from sb3_bomrl.core.params import mean_over_tasks, stack
from sb3_bomrl.meta.gradients import MetaGradient
from sb3_bomrl.policies import Actor, update_normalizers
from sb3_bomrl.rollout.normalization import FrozenNormalizer
from sb3_bomrl.rollout.steps import Hooks, Step, StopCollection
from sb3_bomrl.rollout.tasks import TaskDistribution, split_in_waves
from sb3_bomrl.types import Adaptation, Experience, Params, Rollout, Task

SelfMetaAlgorithm = TypeVar("SelfMetaAlgorithm", bound="MetaAlgorithm")


class MetaAlgorithm(MetaAlgorithmShell):
    """
    Base of the gradient-based meta-RL algorithms.

    ``self.policy`` always holds the meta-policy; adapted policies act through functional calls and are never written
    into it while training, so SB3's callbacks see the meta-policy. A subclass supplies the lower level
    (:meth:`adapt_params`) and the upper level (:meth:`meta_gradient`, :meth:`outer_improvement`).

    Arguments: see :class:`~sb3_bomrl.algorithms.sb3_shell.MetaAlgorithmShell`.
    """

    # ------------------------------------------------------------------ the two levels

    @abstractmethod
    def adapt_params(self, meta_params: Params, support: Experience) -> Adaptation:
        r"""
        The lower level: adapt to every task of the support data.

        :param meta_params: φ, each of shape (n_tasks, \*shape)
        :param support: pre-adaptation data
        :return: θ' and the solver's report
        """

    @abstractmethod
    def meta_gradient(
        self, meta_params: Params, support: Experience, adapted: Adaptation, query: Experience
    ) -> MetaGradient:
        r"""
        The upper level: gradient of the post-adaptation return with respect to φ.

        :param meta_params: φ, each of shape (n_tasks, \*shape)
        :param support: pre-adaptation data
        :param adapted: θ'
        :param query: post-adaptation data
        :return: mean over tasks, and reports
        """

    def can_search(self) -> bool:
        """
        Whether :meth:`outer_improvement` is what :meth:`meta_gradient` is the gradient of.

        :return: by default true
        """
        return True

    @abstractmethod
    def outer_improvement(self, meta_params: Params, support: Experience, query: Experience) -> float:
        r"""
        Gain of the query surrogate when the lower level is solved again from other meta-parameters.

        :param meta_params: candidate φ, each of shape \*shape
        :param support: pre-adaptation data
        :param query: post-adaptation data
        :return: mean gain over tasks
        """

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
            meta-iteration is always finished, a later one is given up if the budget ends between its phases.
        :param callback: called at every vectorised step, with the meta-policy in ``model.policy``
        :param log_interval: meta-iterations between logs, ``None`` for no logs
        :param tb_log_name: name of the run for TensorBoard; the class's name by default
        :param reset_num_timesteps: start counting from 0
        :param progress_bar: show a progress bar
        :return: the trained model
        :raises FloatingPointError: if a parameter, observation, reward, loss or gradient is not finite; the
            meta-parameters are then those of the last complete iteration
        :raises ValueError: if the model has no environment, or ``meta_batch_size`` does not fit its number of them
        """
        if self.env is None:
            raise ValueError("env must be set before learn(), got None: use set_env(env), or load(path, env=env)")
        split_in_waves(self.meta_batch_size, self.env.num_envs)
        name = type(self).__name__ if tb_log_name is None else tb_log_name
        self._normalizer = FrozenNormalizer(self.get_vec_normalize_env())
        self._normalizer.freeze()  # the reset in _setup_learn is no data
        total_timesteps, callback = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, name, progress_bar
        )
        self._normalizer.release()
        self._callback = callback
        self._task_distribution = TaskDistribution(self.env)
        self._collector = self.make_collector(self.env, self.task_generator, self._normalizer)
        if self.rollout_buffer.n_envs != self.n_envs:
            self.rollout_buffer = self._make_rollout_buffer()
        self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
        self._iteration_hooks = []
        iteration, self._resume_from = self._resume_from, 0
        try:
            callback.on_training_start(locals(), globals())
            while self.num_timesteps < total_timesteps:
                complete = self._meta_iteration(must_finish=iteration == 0)
                if not complete:
                    break
                iteration += 1
                self._n_run_iterations = iteration
                self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
                if log_interval is not None and iteration % log_interval == 0:
                    self.dump_logs(iteration)
                if False in [hook.on_iteration_end() for hook in self._iteration_hooks]:
                    break
        except StopCollection:
            pass
        finally:
            self._normalizer.release()
            for hook in self._iteration_hooks:
                hook.on_learn_end()
        callback.on_training_end()
        return self

    def _meta_iteration(self, must_finish: bool) -> bool:
        """One iteration of the practical algorithm; returns whether it was finished within the budget."""
        watch = Stopwatch()
        self._normalizer.freeze()
        tasks = self._task_distribution.sample(self.meta_batch_size, self.task_generator)
        reports.check_finite_params(self.policy)
        meta_params = stack(self.actor.params(), len(tasks))

        with watch("rollout"):
            support = self._collect(tasks, meta_params, is_support=True)  # pre-adaptation
        if self.num_timesteps >= self._total_timesteps and not must_finish:
            return False
        with watch("adapt"):
            adapted = self.adapt_params(meta_params, support)  # lower level
        reports.check_finite_tasks("inner objective", adapted.objective, tasks)
        with watch("rollout"):
            query = self._collect(tasks, adapted.params, is_support=False)  # post-adaptation
        with watch("hypergradient"):
            gradient = self.meta_gradient(meta_params, support, adapted, query)  # upper level
        reports.check_finite_tasks("meta-gradient", gradient.task_norms, tasks)
        with watch("outer"):
            outer = self._outer_step(mean_over_tasks(meta_params), gradient.gradient, support, query)
            self._after_outer_step(support, query)

        self.n_meta_iterations += 1
        self._n_updates += 1
        reports.record_returns(self.logger, support.rollout, query.rollout)
        reports.record_adaptation(self.logger, adapted)
        reports.record_meta_gradient(self.logger, gradient)
        reports.record_outer_step(self.logger, outer)
        reports.record_divergence(self.logger, self.env)
        watch.record(self.logger)
        return True

    def _outer_step(self, meta_params: Params, gradient: Params, support: Experience, query: Experience) -> OuterInfo:
        if self.outer_step == "adam":
            self._update_learning_rate(self.policy.optimizer)
            return adam_step(self.actor, meta_params, gradient, support.batch, self.max_grad_norm)
        max_kl = step_size("max_kl", self.max_kl, self._current_progress_remaining)
        settings = TrustRegion(max_kl, self.cg_max_steps, self.cg_damping)

        def improvement(candidate: Params) -> float:
            return self.outer_improvement(candidate, support, query)

        searches = self.line_search and self.can_search()
        return trpo_step(self.actor, meta_params, gradient, support.batch, settings, improvement if searches else None)

    def _after_outer_step(self, support: Experience, query: Experience) -> None:
        """Move what is learned beside the meta-policy: the critic, and the statistics of normalisers."""
        if self._resolved_baseline() == "value_net":
            self._update_learning_rate(self.policy.optimizer)
            seed = int(self.task_generator.integers(2**63))
            loss = fit_value_net(
                self.actor, support.rollout, self.n_critic_updates, self.batch_size, self.max_grad_norm, seed
            )
            self.logger.record("train/value_loss", loss)
        for phase in (support, query):
            update_normalizers(self.policy, phase.rollout.observations)
        self._normalizer.commit()

    def _collect(self, tasks: list[Task], params: Params, is_support: bool) -> Experience:
        """One phase: rollouts of all tasks, with SB3's callbacks and counters."""
        callback = self._callback

        def on_step(step: Step, number: int) -> bool:
            assert self.env is not None
            self.num_timesteps += self.env.num_envs
            callback.update_locals({**step._asdict(), "self": self, "env": self.env, "n_steps": number, "tasks": tasks})
            if is_support:
                self._update_info_buffer(step.infos, step.dones)
            with self._normalizer.shown_unfrozen():
                return bool(callback.on_step())

        def on_end(rollout: Rollout) -> None:
            callback.update_locals({"rollout_buffer": self.rollout_buffer, "rollout": rollout})
            callback.on_rollout_end()

        hooks = Hooks(callback.on_rollout_start, on_step, on_end)
        with rollout_threads():
            rollout = self._collector.collect(tasks, params, self.rollout_buffer, hooks)
        return self._experience(rollout, is_query=not is_support)

    # ------------------------------------------------------------------ adaptation

    def adapt(
        self: SelfMetaAlgorithm,
        env_or_task: Any,
        n_episodes: int = 20,
        n_adaptation_steps: int = 1,
        seed: int | None = None,
    ) -> SelfMetaAlgorithm:
        r"""
        Adapt the meta-policy to one task.

        Each adaptation step plays ``n_episodes`` episodes with the current policy and solves the lower level on them.
        The first starts from the meta-policy, each further one from the last result.

        :param env_or_task: environment or VecEnv that plays the task, or a task for the model's own environment
        :param n_episodes: episodes per adaptation step
        :param n_adaptation_steps: number of adaptation steps
        :param seed: of episodes and actions; drawn from the model's seed, or the system's entropy, if not given
        :return: a model of the same kind whose policy is the adapted one; this model is left as it is
        :raises ValueError: if the task cannot be set, or the spaces differ
        """
        check_positive("n_episodes", n_episodes, integer=True)
        check_positive("n_adaptation_steps", n_adaptation_steps, integer=True)
        env, task = as_task_env(self, env_or_task)
        collector = self.make_collector(env, np.random.default_rng(self.seed if seed is None else seed))
        params = stack(self.actor.params(), 1)
        for _ in range(n_adaptation_steps):
            with rollout_threads():
                support = collector.collect_episodes([task], params, n_episodes)
            params = self.adapt_to(params, support)
        return self._with_params(mean_over_tasks(params), env)

    def adapt_to(self, params: Params, support: Rollout) -> Params:
        r"""
        Solve the lower level on a rollout.

        :param params: policy that collected the rollout, each of shape (n_tasks, \*shape)
        :param support: rollout of n_tasks tasks
        :return: adapted parameters, same shapes
        :raises FloatingPointError: if a task's objective is not finite
        """
        adapted = self.adapt_params(params, self._experience(support))
        reports.check_finite_tasks("inner objective", adapted.objective, list(range(support.n_tasks)))
        return adapted.params

    def _with_params(self: SelfMetaAlgorithm, params: Params, env: Any) -> SelfMetaAlgorithm:
        """A copy of this model with its own policy and environment."""
        model = copy(self)
        model.policy = deepcopy(self.policy)
        model.actor = Actor(model.policy)
        model.actor.load_params(params)
        model.task_generator = deepcopy(self.task_generator)
        model.rollout_buffer = copy(self.rollout_buffer)
        model.ep_info_buffer = model.ep_success_buffer = None
        model.n_envs = env.num_envs  # any number will do unless the adapted model learns on
        OnPolicyAlgorithm.set_env(model, env)
        return model
