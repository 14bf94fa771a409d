r"""Exact baselines of BO-MRL in finite MDPs: MAML, and one shared policy."""

import numpy as np
import torch as th

from sb3_bomrl.checks import check_positive
from sb3_bomrl.tabular.bomrl_exact import ExactMetaLearner
from sb3_bomrl.tabular.mdp import FiniteMDP
from sb3_bomrl.tabular.solvers import policy_value, state_visitation


def policy_gradient_step(mdp: FiniteMDP, logits: th.Tensor, step_size: float) -> th.Tensor:
    r"""
    Take an exact policy-gradient step :math:`\theta + \alpha \nabla J(\theta)`, MAML's adaptation.

    By the policy-gradient theorem :math:`\nabla_{s,a} J = \nu(s) \pi(a|s) A(s, a) / (1 - \gamma)`.

    :param mdp: task or batch of tasks
    :param logits: theta, shape (S, A) or (..., S, A)
    :param step_size: alpha
    :return: logits, shape (..., S, A), differentiable
    """
    logits = logits.to(th.float64)
    policy = th.softmax(logits, dim=-1)
    values, q_values = policy_value(mdp, policy)
    visitation = state_visitation(mdp, policy) / (1 - mdp.gamma)
    return logits + step_size * visitation.unsqueeze(-1) * policy * (q_values - values.unsqueeze(-1))


class MAMLExact(ExactMetaLearner):
    """
    MAML with exact policy gradients, differentiated through its steps (second-order).

    :param mdps: training tasks, a batch of shape (n_tasks,)
    :param inner_lr: step size alpha of the adaptation, > 0
    :param learning_rate: step size of the outer level
    :param optimizer: ``"adam"`` or ``"gradient_ascent"``
    :param n_adaptation_steps: number of policy-gradient steps that meta-training looks ahead
    :param meta_logits: start, shape (S, A); None for the uniform policy
    :raises ValueError: if an argument is out of range
    """

    def __init__(
        self,
        mdps: FiniteMDP,
        inner_lr: float,
        learning_rate: float = 0.03,
        optimizer: str = "adam",
        n_adaptation_steps: int = 1,
        meta_logits: th.Tensor | None = None,
    ) -> None:
        super().__init__(mdps, learning_rate, optimizer, n_adaptation_steps, meta_logits)
        check_positive("inner_lr", inner_lr)
        self.inner_lr = inner_lr

    def adaptation_path(self, mdps: FiniteMDP, n_adaptation_steps: int) -> list[th.Tensor]:
        """
        Take one policy-gradient step per adaptation.

        :param mdps: tasks to adapt to
        :param n_adaptation_steps: K
        :return: K + 1 tables of shape (n_tasks, S, A)
        """
        path = [self.meta_logits.expand(*mdps.batch_shape, -1, -1)]
        for _ in range(n_adaptation_steps):
            path.append(policy_gradient_step(mdps, path[-1], self.inner_lr))
        return path


class SharedPolicyExact(ExactMetaLearner):
    """One policy for all tasks, without adaptation, by ascent on the mean return."""

    def adaptation_path(self, mdps: FiniteMDP, n_adaptation_steps: int) -> list[th.Tensor]:
        """
        Return the shared policy's logits, which no adaptation changes.

        :param mdps: tasks
        :param n_adaptation_steps: K
        :return: K + 1 equal tables of shape (n_tasks, S, A)
        """
        return [self.meta_logits.expand(*mdps.batch_shape, -1, -1)] * (n_adaptation_steps + 1)


def mean_optimal_policy(mdps: FiniteMDP, n_iterations: int = 500, n_starts: int = 4, seed: int = 0) -> th.Tensor:
    """
    Search for the policy of the highest mean return over the tasks without adaptation.

    The problem is not concave. The result is the best of several ascents, from the uniform and from random policies.

    :param mdps: tasks, a batch of shape (n_tasks,)
    :param n_iterations: Adam steps of each ascent
    :param n_starts: number of ascents
    :param seed: seed of the random starts
    :return: probabilities, shape (S, A)
    """
    starts = [random_logits(mdps.n_states, mdps.n_actions, seed + index) for index in range(n_starts - 1)]
    learners = [SharedPolicyExact(mdps, learning_rate=0.1, meta_logits=start) for start in [None, *starts]]
    for learner in learners:
        learner.learn(n_iterations)
    return max(learners, key=lambda learner: learner.meta_objective().item()).meta_policy


def random_logits(n_states: int, n_actions: int, seed: int, scale: float = 1.0) -> th.Tensor:
    """
    Draw independent normal logits.

    :param n_states: S
    :param n_actions: A
    :param seed: seed of the draw
    :param scale: standard deviation; 0 is the uniform policy
    :return: shape (S, A)
    """
    return th.as_tensor(scale * np.random.default_rng(seed).standard_normal((n_states, n_actions)))
