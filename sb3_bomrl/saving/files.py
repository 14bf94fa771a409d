"""Writing files so that they are either whole or not there."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_atomically(path: Path, write: Callable[[io.BufferedWriter], Any]) -> None:
    """
    Write a file under a temporary name in the same folder and rename it.

    If the disk is full or the process ends meanwhile, the old file stays as it was.

    :param path: the file
    :param write: writes to the open binary file
    :raises OSError: if it cannot be written; the old file is then as it was
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
