r"""
BO-MRL in finite MDPs, exactly: Algorithm 1 with expectations in place of samples.

::

    initialise the meta-logits phi
    repeat:
        for each task: theta' = argmin F(theta, phi)       lower level, Eq. (A2), closed form or Newton
        objective = mean over tasks of J(pi_theta')        upper level, Eq. (A1), by linear solves
        phi = phi + step along d objective / d phi         hypergradient, Eq. (A3), by implicit differentiation
"""

from abc import ABC, abstractmethod

import torch as th

from sb3_bomrl.checks import check_choice, check_positive
from sb3_bomrl.core.distances import DISTANCES
from sb3_bomrl.tabular.adaptation import adaptation_path
from sb3_bomrl.tabular.mdp import FiniteMDP
from sb3_bomrl.tabular.solvers import expected_return

OPTIMIZERS = ("adam", "gradient_ascent")


class ExactMetaLearner(ABC):
    """
    Meta-training on exact values; a subclass defines the adaptation by ``adaptation_path``.

    :param mdps: training tasks, a batch of shape (n_tasks,)
    :param learning_rate: step size of the outer level
    :param optimizer: ``"adam"`` or ``"gradient_ascent"`` (constant step, no momentum)
    :param n_adaptation_steps: number K of adaptations that meta-training looks ahead
    :param meta_logits: start, shape (S, A); None for the uniform policy
    :raises ValueError: if an argument is out of range
    """

    def __init__(
        self,
        mdps: FiniteMDP,
        learning_rate: float = 0.03,
        optimizer: str = "adam",
        n_adaptation_steps: int = 1,
        meta_logits: th.Tensor | None = None,
    ) -> None:
        if len(mdps.batch_shape) != 1:
            raise ValueError(f"mdps must be a batch of tasks, shape (n_tasks,), got batch shape {mdps.batch_shape}")
        check_positive("learning_rate", learning_rate)
        check_choice("optimizer", optimizer, OPTIMIZERS)
        check_positive("n_adaptation_steps", n_adaptation_steps, integer=True)
        shape = (mdps.n_states, mdps.n_actions)
        start = th.zeros(shape, dtype=th.float64) if meta_logits is None else meta_logits.detach().to(th.float64)
        if start.shape != shape:
            raise ValueError(f"meta_logits must have shape {shape} (states, actions), got {tuple(start.shape)}")
        self.mdps = mdps
        self.n_adaptation_steps = n_adaptation_steps
        self.meta_logits = start.clone().requires_grad_(True)
        kind = th.optim.Adam if optimizer == "adam" else th.optim.SGD
        self._optimizer = kind([self.meta_logits], lr=learning_rate, maximize=True)
        self.history: dict[str, list[float]] = {"post_adapt_return": [], "meta_gradient_norm": []}

    @property
    def meta_policy(self) -> th.Tensor:
        """Probabilities of the meta-policy, shape (S, A)."""
        return th.softmax(self.meta_logits.detach(), dim=-1)

    @abstractmethod
    def adaptation_path(self, mdps: FiniteMDP, n_adaptation_steps: int) -> list[th.Tensor]:
        """
        Return the logits before the first and after each adaptation of the meta-policy.

        :param mdps: tasks to adapt to
        :param n_adaptation_steps: K
        :return: K + 1 tables of shape (n_tasks, S, A), differentiable in ``self.meta_logits``
        """

    def meta_objective(self) -> th.Tensor:
        """Compute Eq. (A1), the mean return of the training tasks after adaptation, with its graph."""
        logits = self.adaptation_path(self.mdps, self.n_adaptation_steps)[-1]
        return expected_return(self.mdps, th.softmax(logits, dim=-1)).mean()

    def learn(self, n_iterations: int) -> "ExactMetaLearner":
        """
        Take outer steps, and append the objective and its gradient's norm before each step to ``history``.

        :param n_iterations: number of outer steps
        :return: self
        """
        for _ in range(n_iterations):
            self._optimizer.zero_grad()
            objective = self.meta_objective()
            objective.backward()
            assert self.meta_logits.grad is not None
            self.history["post_adapt_return"].append(objective.item())
            self.history["meta_gradient_norm"].append(self.meta_logits.grad.norm().item())
            self._optimizer.step()
        return self

    def evaluate(self, mdps: FiniteMDP, n_adaptation_steps: int = 1) -> th.Tensor:
        """
        Compute the returns before the first and after each adaptation.

        :param mdps: tasks, e.g. held-out ones
        :param n_adaptation_steps: K
        :return: J, shape (K + 1, n_tasks)
        """
        with th.no_grad():
            path = self.adaptation_path(mdps, n_adaptation_steps)
            return th.stack([expected_return(mdps, th.softmax(logits, dim=-1)) for logits in path])


class BOMRLExact(ExactMetaLearner):
    """
    BO-MRL with an exact lower level.

    :param mdps: training tasks, a batch of shape (n_tasks,)
    :param distance: ``"kl_meta_task"`` Alg(1), ``"kl_task_meta"`` Alg(2) or ``"parameter"`` Alg(3)
    :param reg_coef: lambda, weight of the distance, > 0
    :param sampling_term: True for the whole hypergradient, (A4) + (A5); False for the distance term (A4) alone
    :param learning_rate: step size of the outer level
    :param optimizer: ``"adam"`` or ``"gradient_ascent"``
    :param n_adaptation_steps: number K of adaptations that meta-training looks ahead
    :param meta_logits: start, shape (S, A); None for the uniform policy
    :raises ValueError: if an argument is out of range
    """

    def __init__(
        self,
        mdps: FiniteMDP,
        distance: str,
        reg_coef: float,
        sampling_term: bool = True,
        learning_rate: float = 0.03,
        optimizer: str = "adam",
        n_adaptation_steps: int = 1,
        meta_logits: th.Tensor | None = None,
    ) -> None:
        super().__init__(mdps, learning_rate, optimizer, n_adaptation_steps, meta_logits)
        check_choice("distance", distance, DISTANCES)
        check_positive("reg_coef", reg_coef)
        self.distance, self.reg_coef, self.sampling_term = distance, reg_coef, sampling_term

    def adaptation_path(self, mdps: FiniteMDP, n_adaptation_steps: int) -> list[th.Tensor]:
        """
        Solve the lower level, Eq. (A2), ``n_adaptation_steps`` times in a row.

        :param mdps: tasks to adapt to
        :param n_adaptation_steps: K
        :return: K + 1 tables of shape (n_tasks, S, A)
        """
        return adaptation_path(
            mdps, self.meta_logits, self.distance, self.reg_coef, n_adaptation_steps, self.sampling_term
        )
