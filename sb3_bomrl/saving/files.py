"""Reading regular files, and writing files so that they are either whole or not there."""

import errno
import io
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

TEMPORARY = ".sb3_bomrl-*.tmp"
"""Pattern of the names under which files are written; one is left only where the process was killed meanwhile."""


def write_atomically(path: Path, write: Callable[[io.BufferedWriter], Any]) -> None:
    """
    Write a file under a temporary name in the same folder and rename it.

    If the disk is full or the process ends meanwhile, the old file stays as it was. Of several writers at once, one
    leaves its whole file. A link stays, and the file that it names is written; a FIFO, a device or ``/dev/stdout`` is
    written into.

    :param path: the file
    :param write: writes to the open binary file
    :raises OSError: that names the path, if it cannot be written; the old file is then as it was
    """
    try:
        if is_stream(path):
            with path.open("ab") as stream:
                write(stream)
        else:
            _replace(Path(os.path.realpath(path)), write)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def _replace(target: Path, write: Callable[[io.BufferedWriter], Any]) -> None:
    """Write beside a regular file, or where there is none, and take its place and permissions."""
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    temporary = target.with_name(TEMPORARY.replace("*", secrets.token_hex(8)))
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def is_stream(path: Path) -> bool:
    """
    Tell whether a path is written into: a FIFO, a device, a socket, or an open file such as ``/dev/stdout``.

    :param path: any path
    :return: false for a regular file, a folder, and where there is nothing
    """
    if not path.exists():
        return False
    if not (path.is_file() or path.is_dir()):
        return True
    while path.is_symlink():
        if Path(os.path.realpath(path.parent)).is_relative_to("/proc"):
            return True
        path = path.parent / os.readlink(path)
    return False


def read_regular(path: Path) -> bytes:
    """
    Read a file that is a regular one, or a link to one.

    :param path: the file
    :return: its content
    :raises FileNotFoundError: if there is nothing
    :raises ValueError: for a folder, a FIFO or a device
    """
    # a FIFO that takes the file's place before it is opened must not block either
    with os.fdopen(
        os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb"
    ) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError(f"path must name a regular file, got {str(path)!r}, which is a FIFO or a device")
        return file.read()
