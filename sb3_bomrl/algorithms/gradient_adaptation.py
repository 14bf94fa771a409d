"""The base of the methods that adapt by policy-gradient steps."""

from typing import ClassVar

from stable_baselines3.common.type_aliases import Schedule

from sb3_bomrl.algorithms.meta_algorithm import MetaAlgorithm
from sb3_bomrl.checks import check_count, check_positive
from sb3_bomrl.meta.policy_gradient import StepSize, policy_gradient_step
from sb3_bomrl.types import Adaptation, Batch, Experience, Params

RENAMED = {"n_inner_steps": "n_adaptation_steps"}


class GradientAdaptation(MetaAlgorithm):
    r"""
    Base of MAML and its relatives: an adaptation is one policy-gradient step θ + α ∇J(θ).

    A meta-iteration takes ``n_adaptation_steps`` of them, each on fresh data of the policy before it, then plays the
    result. At test time every adaptation step of ``adapt`` and ``evaluate_adaptation`` is one such step.
    """

    surrogate: str = "linear"
    inner_lr: float | Schedule
    inner_lr_decay: float = 1.0
    inner_max_kl: float = float("inf")
    n_adaptation_steps: int

    scheduled: ClassVar[tuple[str, ...]] = (*MetaAlgorithm.scheduled, "inner_lr")
    renamed: ClassVar[dict[str, str]] = RENAMED

    def _check_arguments(self) -> None:
        super()._check_arguments()
        check_count("n_adaptation_steps", self.n_adaptation_steps)
        check_positive("inner_lr_decay", self.inner_lr_decay)
        if self.inner_max_kl != float("inf"):
            check_positive("inner_max_kl", self.inner_max_kl)

    @property
    def n_support_phases(self) -> int:
        """One per adaptation step."""
        return self.n_adaptation_steps

    def _step_size(self) -> StepSize:
        return StepSize(self._now("inner_lr"), self.inner_lr_decay, self.inner_max_kl)

    def adapt_params(self, meta_params: Params, support: Experience) -> Adaptation:
        step_size = self._step_size()
        inner_lr = step_size.at(support.n_adapted)

        def step(batch: Batch, params: Params) -> Adaptation:
            return policy_gradient_step(self.actor, batch, params, inner_lr, self.surrogate, max_kl=step_size.max_kl)

        return self.over_tasks(step, support.batch, meta_params, sized_by=support.batch)


def batches_of(phases: tuple[Experience, ...]) -> tuple[Batch, ...]:
    """
    Take the batches of several phases.

    :param phases: data of each
    :return: their batches
    """
    return tuple(phase.batch for phase in phases)
