"""Runs that were interrupted and go on."""

from typing import Protocol, TypeVar

from stable_baselines3.common.type_aliases import MaybeCallback

from sb3_bomrl.saving.persistence import PersistentAlgorithm

SelfResumable = TypeVar("SelfResumable", bound="ResumableAlgorithm")


class IterationHook(Protocol):
    """What :meth:`ResumableAlgorithm.add_iteration_hook` takes."""

    def on_iteration_end(self) -> bool:
        """Called between two meta-iterations; returning ``False`` ends the run."""

    def on_learn_end(self) -> None:
        """Called however the run ends, by an exception too."""


class ResumableAlgorithm(PersistentAlgorithm):
    """What lets a run be saved between two meta-iterations and go on."""

    _n_run_iterations: int
    _resume_from: int
    _iteration_hooks: list[IterationHook]

    def add_iteration_hook(self, hook: IterationHook) -> None:
        """
        Be told when a meta-iteration is complete; for callbacks, which call this when training starts.

        :param hook: kept until ``learn`` returns
        """
        self._iteration_hooks.append(hook)

    def resume(
        self: SelfResumable,
        callback: MaybeCallback = None,
        log_interval: int | None = 1,
        tb_log_name: str | None = None,
        progress_bar: bool = False,
    ) -> SelfResumable:
        """
        Go on with the run of ``learn`` that this model was saved in, to the total of environment steps it was given.

        From a file that was saved between two meta-iterations, as by
        :class:`~sb3_bomrl.ExactCheckpointCallback`, the run ends as if it had not been interrupted.

        :param callback: as in ``learn``
        :param log_interval: as in ``learn``
        :param tb_log_name: as in ``learn``
        :param progress_bar: as in ``learn``
        :return: the trained model; at once if the run was complete
        """
        left = self._total_timesteps - self.num_timesteps
        if left <= 0:
            return self
        self._resume_from = self._n_run_iterations
        try:
            return self.learn(
                left,
                callback,
                log_interval,  # type: ignore[arg-type]
                tb_log_name,  # type: ignore[arg-type]
                reset_num_timesteps=False,
                progress_bar=progress_bar,
            )
        finally:
            self._resume_from = 0
