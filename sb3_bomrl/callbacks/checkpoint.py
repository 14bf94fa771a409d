"""A callback that saves between meta-iterations, so that an interrupted run can go on with the same numbers."""

import signal
import threading
import warnings
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback

from sb3_bomrl.algorithms.meta_algorithm import MetaAlgorithm
from sb3_bomrl.checks import check_positive
from sb3_bomrl.saving.checkpoints import checkpoint_number, checkpoints
from sb3_bomrl.saving.files import TEMPORARY
from sb3_bomrl.saving.lock import folder_lock

_N_KEPT = 2


class ExactCheckpointCallback(BaseCallback):
    """
    Save the model between meta-iterations, so that a run that is killed can go on with the same numbers.

    The files are ``checkpoint_<meta-iterations>.zip``; the last two are kept. If one cannot be written, as on a full
    disk, there is a warning, the run goes on, and the files that were there stay.

    While ``learn`` runs in the main thread, the first SIGINT (Ctrl-C) or SIGTERM lets it finish the meta-iteration,
    save and return, with the signal's number in :attr:`interrupted_by`. The second one acts as without this callback.

    :param folder: folder for the checkpoints; it is created if it does not exist
    :param save_freq: meta-iterations between checkpoints
    :param verbose: 0 prints only where an interrupted run was saved, 1 every checkpoint
    :raises ValueError: when training starts, if another run writes to the folder, or it holds checkpoints of a longer
        run than the model's
    """

    def __init__(self, folder: str | Path, save_freq: int = 10, verbose: int = 0) -> None:
        check_positive("save_freq", save_freq, integer=True)
        super().__init__(verbose)
        self.folder = Path(folder)
        self.save_freq = save_freq
        self.interrupted_by: int | None = None
        self._handlers: dict[int, Any] = {}
        self._lock = ExitStack()

    def _on_training_start(self) -> None:
        if not isinstance(self.model, MetaAlgorithm):
            raise ValueError(f"ExactCheckpointCallback needs a MetaAlgorithm, got {type(self.model).__name__}")
        self._lock.enter_context(folder_lock(self.folder, "folder"))
        self.model.add_iteration_hook(self)  # from here on the lock is released
        found = checkpoints(self.folder)
        if found and checkpoint_number(found[-1]) > self.model.n_meta_iterations:
            raise ValueError(
                f"folder must hold no checkpoint of another run, got {found[-1]}: go on with it by load_checkpoint() "
                "and resume(), or name another folder"
            )
        for left in self.folder.glob(TEMPORARY):  # by a run that was killed while it saved
            left.unlink(missing_ok=True)
        self.interrupted_by = None
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._on_signal)

    def _on_step(self) -> bool:
        return True

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.interrupted_by = number
        self._restore_handlers()
        name = signal.Signals(number).name
        with suppress(RuntimeError):  # the signal came while something was being printed
            print(f"{name}: finishing this meta-iteration, then saving. Once more to stop at once", flush=True)

    def on_learn_end(self) -> None:
        """Restore the signal handlers, and let other runs use the folder."""
        self._lock.close()
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        for number, handler in list(self._handlers.items()):  # a signal in between restores them too
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
            self._handlers.pop(number, None)

    def on_iteration_end(self) -> bool:
        """
        Save if ``save_freq`` meta-iterations have passed or the run was interrupted.

        :return: false if the run was interrupted
        """
        assert isinstance(self.model, MetaAlgorithm)
        stops = self.interrupted_by is not None
        if stops or self.model.n_meta_iterations % self.save_freq == 0:
            self._save(stops)
        return not stops

    def _save(self, stops: bool) -> None:
        assert isinstance(self.model, MetaAlgorithm)
        path = self.folder / f"checkpoint_{self.model.n_meta_iterations:08d}.zip"
        try:
            self.model.save(path)
        except OSError as error:
            left = checkpoints(self.folder)
            kept = f"the last one is {left[-1]}" if left else "there is none yet"
            warnings.warn(f"the checkpoint {path} could not be written ({error}); {kept}", RuntimeWarning, stacklevel=2)
            return
        for old in checkpoints(self.folder)[:-_N_KEPT]:
            old.unlink(missing_ok=True)
        if stops:
            print(f"Saved {path}, at {self.num_timesteps:,} environment steps", flush=True)
        elif self.verbose >= 1:
            print(f"Saved {path}")
