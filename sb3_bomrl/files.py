"""Files that are either whole or not there."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_atomically(path: Path, write: Callable[[io.BufferedWriter], Any]) -> None:
    """
    Write a file under a temporary name in the same folder and rename it.

    :param path: the file
    :param write: writes to the open binary file
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        write(file)
    temporary.replace(path)
