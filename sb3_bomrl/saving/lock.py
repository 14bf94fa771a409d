"""One process at a time in a run's folder."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sb3_bomrl.saving.files import make_folder, open_regular

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = ".sb3_bomrl.lock"
"""Name of the file in a run's folder that its process holds; it holds the number of the last such process."""


@contextmanager
def folder_lock(folder: Path, name: str = "output") -> Iterator[None]:
    """
    Keep other processes out of a folder for the time of a block. The lock ends with the process, however that ends.

    File systems without locks, and Windows, keep nobody out.

    :param folder: the folder; it is created if it does not exist
    :param name: the argument that names it, for the error
    :raises ValueError: if another process is in it, or its lock is no regular file
    """
    make_folder(folder)
    lock = folder / LOCK_FILE
    if lock.is_symlink():  # what it names is not this folder's
        raise ValueError(f"{lock} must be a regular file, but is a link")
    with open_regular(lock, "a+") as file:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                file.seek(0)
                raise ValueError(
                    f"{name} must be a folder that no other run writes to, got {folder}, where process "
                    f"{file.read(20).strip()} is training"
                ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
