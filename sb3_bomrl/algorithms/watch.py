"""Warnings of failures that last."""

import warnings
from collections import Counter

from sb3_bomrl.core.linear_solve import SolveStatus
from sb3_bomrl.meta.gradients import MetaGradient
from sb3_bomrl.rollout.returns import episode_returns
from sb3_bomrl.types import MetaBatch

PATIENCE = 10
"""Meta-iterations in a row after which a failure is warned of, once per run."""

NO_MINIMUM = (
    "the lower level has had no minimum in most tasks of the last {n} meta-iterations "
    "(hypergradient/negative_curvature_count), so the meta-gradient is not to be trusted: raise ridge_coef or reg_coef"
)
WORSE = (
    "adaptation has lowered the mean return in each of the last {n} meta-iterations (meta/adaptation_gain): raise "
    "reg_coef, or give every task more steps to adapt on, by n_steps or more environments"
)


class FailureWatch:
    """Looks at every meta-iteration of a run, and warns once of each kind of failure that lasts."""

    def __init__(self) -> None:
        self._in_a_row: Counter[str] = Counter()

    def see(self, data: MetaBatch, gradient: MetaGradient) -> None:
        """
        Look at a meta-iteration.

        :param data: what it has collected
        :param gradient: its meta-gradient
        """
        self._count(NO_MINIMUM, _has_no_minimum(gradient))
        before, after = (float(episode_returns(phase.rollout).mean()) for phase in (data.supports[0], data.query))
        self._count(WORSE, after < before)

    def _count(self, message: str, failed: bool) -> None:
        self._in_a_row[message] = self._in_a_row[message] + 1 if failed else 0
        if self._in_a_row[message] == PATIENCE:
            warnings.warn(message.format(n=PATIENCE), stacklevel=2)
            self._in_a_row[message] = -(10**9)


def _has_no_minimum(gradient: MetaGradient) -> bool:
    if gradient.solve is None:
        return False
    negative = gradient.solve.status == SolveStatus.NEGATIVE_CURVATURE
    return bool(2 * negative.sum() > len(negative))
