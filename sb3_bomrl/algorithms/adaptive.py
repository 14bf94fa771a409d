"""The lower level from the user's side: a meta-policy in, an adapted model out."""

from abc import abstractmethod
from copy import copy, deepcopy
from typing import Any, TypeVar

import numpy as np
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from sb3_bomrl.algorithms import reports
from sb3_bomrl.algorithms.sb3_shell import MetaAlgorithmShell
from sb3_bomrl.algorithms.task_env import as_task_env
from sb3_bomrl.checks import check_positive
from sb3_bomrl.core.params import stack
from sb3_bomrl.core.threads import torch_threads
from sb3_bomrl.policies.actor import Actor
from sb3_bomrl.types import Adaptation, Experience, Params, Rollout

SelfAdaptive = TypeVar("SelfAdaptive", bound="AdaptiveAlgorithm")


class AdaptiveAlgorithm(MetaAlgorithmShell):
    """
    A model that adapts: a subclass says how, in :meth:`adapt_params`.

    Arguments: see :class:`~sb3_bomrl.algorithms.sb3_shell.MetaAlgorithmShell`.
    """

    @abstractmethod
    def adapt_params(self, meta_params: Params, support: Experience) -> Adaptation:
        r"""
        The lower level: adapt to every task of the support data.

        :param meta_params: φ, each of shape (n_tasks, \*shape)
        :param support: pre-adaptation data
        :return: θ' and the solver's report
        """

    def adapt(
        self: SelfAdaptive,
        env_or_task: Any,
        n_episodes: int = 20,
        n_adaptation_steps: int = 1,
        seed: int | None = None,
    ) -> SelfAdaptive:
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
            with torch_threads(self.n_rollout_threads):
                support = collector.collect_episodes([task], params, n_episodes)
            params = self.adapt_to(params, support)
        return self._with_params({name: value[0] for name, value in params.items()}, env)

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

    def _with_params(self: SelfAdaptive, params: Params, env: Any) -> SelfAdaptive:
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
