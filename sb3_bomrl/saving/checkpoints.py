"""Checkpoint files between meta-iterations."""

import re
import warnings
from pathlib import Path
from typing import Any, TypeVar

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.type_aliases import GymEnv

from sb3_bomrl.saving.model_file import DamagedFileError

_NAME = re.compile(r"checkpoint_(\d+)\.zip")

Algorithm = TypeVar("Algorithm", bound=BaseAlgorithm)


def checkpoints(folder: str | Path) -> list[Path]:
    """
    List the checkpoints in a folder.

    :param folder: of an :class:`ExactCheckpointCallback`
    :return: the files, the latest one last; none if there is no such folder
    """
    folder = Path(folder)
    if not folder.is_dir():
        return []
    return sorted(
        (path for path in folder.iterdir() if _NAME.fullmatch(path.name) and path.is_file()), key=checkpoint_number
    )


def checkpoint_number(path: Path) -> int:
    """
    Read the number in a checkpoint's name.

    :param path: from :func:`checkpoints`
    :return: meta-iterations that were done when it was saved
    """
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1])


def load_checkpoint(algorithm: type[Algorithm], folder: str | Path, env: GymEnv, **kwargs: Any) -> Algorithm | None:
    """
    Load the latest checkpoint that is not damaged, to go on with ``resume()``.

    **By default, as ``load``, this unpickles, which can run any code in the file: give ``trusted=False`` for the folder
    of somebody else.**

    A damaged one is renamed to ``….zip.damaged``, with a warning, and the one before it is loaded.

    :param algorithm: the model's class
    :param folder: of an :class:`ExactCheckpointCallback`
    :param env: environment to go on with, made as for the interrupted run
    :param kwargs: further arguments of ``load``
    :return: the model, or ``None`` if there is no checkpoint
    :raises ValueError: if that checkpoint is another algorithm's, or does not fit ``env``
    """
    for path in reversed(checkpoints(folder)):
        try:
            return algorithm.load(path, env=env, **kwargs)
        except DamagedFileError as error:
            path.rename(f"{path}.damaged")
            warnings.warn(f"{error}: renamed, and the checkpoint before it is used", RuntimeWarning, stacklevel=2)
    return None
