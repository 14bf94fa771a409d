"""The base of the meta-algorithms: the loop of the paper."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TypeVar

import torch as th
from stable_baselines3.common.type_aliases import MaybeCallback

from sb3_bomrl.algorithms import reports
from sb3_bomrl.algorithms.adaptive import AdaptiveAlgorithm
from sb3_bomrl.algorithms.outer import adam_step, fit_value_net, trpo_step
from sb3_bomrl.algorithms.stopwatch import Stopwatch
from sb3_bomrl.core.params import stack
from sb3_bomrl.core.threads import torch_threads
from sb3_bomrl.core.trust_region import OuterInfo, TrustRegion
from sb3_bomrl.meta.gradients import MetaGradient
from sb3_bomrl.meta.policy_gradient import query_surrogate
from sb3_bomrl.policies.extractors import update_normalizers
from sb3_bomrl.rollout.normalization import FrozenNormalizer
from sb3_bomrl.rollout.steps import Hooks, Step, StopCollection
from sb3_bomrl.rollout.tasks import TaskSampler, split_in_waves
from sb3_bomrl.types import Adaptation, Experience, Params, Rollout, Task

SelfMetaAlgorithm = TypeVar("SelfMetaAlgorithm", bound="MetaAlgorithm")


class MetaAlgorithm(AdaptiveAlgorithm):
    """
    Base of the gradient-based meta-RL algorithms.

    ``self.policy`` always holds the meta-policy; adapted policies act through functional calls and are never written
    into it while training, so SB3's callbacks see the meta-policy. A subclass supplies the lower
    level (``adapt_params``) and the upper level (:meth:`meta_gradient`).

    Arguments: see :class:`~sb3_bomrl.algorithms.sb3_shell.MetaAlgorithmShell`.
    """

    # ------------------------------------------------------------------ the upper level

    @property
    def n_support_phases(self) -> int:
        """Adaptations per meta-iteration, each to data of its own; 1 unless a method says otherwise."""
        return 1

    @abstractmethod
    def meta_gradient(
        self,
        meta_params: Params,
        supports: Sequence[Experience],
        adapted: Sequence[Adaptation],
        query: Experience,
    ) -> MetaGradient:
        r"""
        The upper level: gradient of the post-adaptation return with respect to φ.

        :param meta_params: φ, each of shape (n_tasks, \*shape)
        :param supports: pre-adaptation data of every support phase: of φ, then of each adaptation but the last
        :param adapted: the adaptation to each of them, the last one being θ'
        :param query: post-adaptation data, of θ'
        :return: mean over tasks, and reports
        """

    def can_search(self) -> bool:
        """
        Whether :meth:`outer_improvement` is what :meth:`meta_gradient` is the gradient of.

        :return: by default true
        """
        return True

    def outer_improvement(self, meta_params: Params, supports: Sequence[Experience], query: Experience) -> float:
        r"""
        Gain of the query surrogate when the same data are adapted to again from other meta-parameters.

        :param meta_params: candidate φ, each of shape \*shape
        :param supports: pre-adaptation data of every support phase
        :param query: post-adaptation data
        :return: mean gain over tasks
        """
        params = stack(meta_params, query.rollout.n_tasks)
        for support in supports:
            params = self.adapt_params(params, support).params
        where_sampled = (query.batch.weights * query.batch.advantages).sum(-1)  # 0 only where all weights are equal
        with th.no_grad():
            return float((query_surrogate(self.actor, query.batch, params) - where_sampled).mean())

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
        self._task_distribution = TaskSampler(self.env)
        self._collector = self.make_collector(self.env, self.task_generator, self._normalizer)
        if self.rollout_buffer.n_envs != self.n_envs:
            self.rollout_buffer = self._make_rollout_buffer()
        if total_timesteps > 0:
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
        phi = self.actor.params()
        meta_params = stack(phi, len(tasks))

        params, supports, adapted = meta_params, list[Experience](), list[Adaptation]()
        for phase in range(self.n_support_phases):
            with watch("rollout"):
                supports.append(self._collect(tasks, params, phase))  # pre-adaptation
            if self.num_timesteps >= self._total_timesteps and not must_finish:
                return False
            with watch("adapt"):
                adapted.append(self.adapt_params(params, supports[-1]))  # lower level
            reports.check_finite_tasks("inner objective", adapted[-1].objective, tasks)
            params = adapted[-1].params
        with watch("rollout"):
            query = self._collect(tasks, params, self.n_support_phases)  # post-adaptation
        with watch("hypergradient"):
            gradient = self.meta_gradient(meta_params, supports, adapted, query)  # upper level
        reports.check_finite_tasks("meta-gradient", gradient.task_norms, tasks)
        with watch("outer"):
            outer = self._outer_step(phi, gradient, supports, adapted, query)
            self._after_outer_step([*supports, query])

        self.n_meta_iterations += 1
        self._n_updates += 1
        reports.record_returns(self.logger, supports[0].rollout, query.rollout)
        reports.record_adaptation(self.logger, adapted[-1])
        reports.record_meta_gradient(self.logger, gradient)
        reports.record_outer_step(self.logger, outer)
        reports.record_divergence(self.logger, self.env)
        watch.record(self.logger)
        return True

    def _outer_step(
        self,
        phi: Params,
        gradient: MetaGradient,
        supports: Sequence[Experience],
        adapted: Sequence[Adaptation],
        query: Experience,
    ) -> OuterInfo:
        """Move the meta-policy, φ, along the meta-gradient."""
        batch = supports[0].batch
        if self.outer_step == "adam":
            self._update_learning_rate(self.policy.optimizer)
            return adam_step(self.actor, phi, gradient.gradient, batch, self.max_grad_norm)
        settings = TrustRegion(self._step_size("max_kl"), self.cg_max_steps, self.cg_damping)

        def improvement(candidate: Params) -> float:
            return self.outer_improvement(candidate, supports, query)

        searches = self.line_search and self.can_search()
        search = improvement if searches else None
        return trpo_step(self.actor, phi, gradient.gradient, batch, settings, search, self.sub_sampling_factor)

    def _after_outer_step(self, phases: Sequence[Experience]) -> None:
        """Move what is learned beside the meta-policy: the critic, and the statistics of normalisers."""
        if self._resolved_baseline() == "value_net":
            self._update_learning_rate(self.policy.optimizer)
            seed = int(self.task_generator.integers(2**63))
            loss = fit_value_net(
                self.actor, phases[0].rollout, self.n_critic_updates, self.batch_size, self.max_grad_norm, seed
            )
            self.logger.record("train/value_loss", loss)
        for phase in phases:
            update_normalizers(self.policy, phase.rollout.observations)
        self._normalizer.commit()

    def _collect(self, tasks: list[Task], params: Params, phase: int) -> Experience:
        """Rollouts of all tasks, with SB3's callbacks and counters; phase 0 plays the meta-policy, the last one θ'."""
        callback = self._callback

        def on_step(step: Step, number: int) -> bool:
            assert self.env is not None
            self.num_timesteps += self.env.num_envs
            callback.update_locals({**step._asdict(), "self": self, "env": self.env, "n_steps": number, "tasks": tasks})
            if phase == 0:
                self._update_info_buffer(step.infos, step.dones)
            with self._normalizer.shown_unfrozen():
                return bool(callback.on_step())

        def on_end(rollout: Rollout) -> None:
            callback.update_locals({"rollout_buffer": self.rollout_buffer, "rollout": rollout})
            callback.on_rollout_end()

        hooks = Hooks(callback.on_rollout_start, on_step, on_end)
        with torch_threads(self.n_rollout_threads):
            rollout = self._collector.collect(tasks, params, self.rollout_buffer, hooks)
        return self._experience(rollout, is_query=phase == self.n_support_phases)
