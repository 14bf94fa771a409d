"""Reading regular files, and writing files so that they are either whole or not there."""

import errno
import io
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

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
            _replace(_named_by(path), write)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def _named_by(path: Path) -> Path:
    """The file that a path or link names, which may not be there yet; a link in a circle names none."""
    try:
        return Path(os.path.realpath(path, strict=True))
    except FileNotFoundError:
        return Path(os.path.realpath(path))


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


def open_regular(path: Path, mode: str, buffering: int = -1) -> IO[Any]:
    """
    Open a file that is a regular one, a link to one, or not there yet.

    :param path: the file
    :param mode: as of ``open``
    :param buffering: as of ``open``
    :return: the open file
    :raises FileNotFoundError: if there is nothing to read
    :raises ValueError: for a folder, a FIFO, a socket or a device
    """

    def opened(name: str, flags: int) -> int:
        # a FIFO that takes the file's place before it is opened must not block either
        descriptor = os.open(name, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0), 0o666)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            _check_regular(path)
        return descriptor

    _check_regular(path)
    return open(path, mode, buffering, opener=opened)


def _check_regular(path: Path) -> None:
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "a FIFO" if path.is_fifo() else "a socket or a device"
        raise ValueError(f"{path} must be a regular file, but is {kind}")


def read_regular(path: Path) -> bytes:
    """
    Read a file that is a regular one, or a link to one.

    :param path: the file
    :return: its content
    :raises FileNotFoundError: if there is nothing
    :raises ValueError: for a folder, a FIFO or a device, and for a file of the system that holds no such content
    """
    with open_regular(path, "rb") as file:
        try:
            content = file.read()
        except OSError as error:  # as of /proc/self/mem
            raise ValueError(f"{path} must be a file that can be read: {error.strerror}") from error
    return content or b""  # None for one that would keep its reader waiting


def make_folder(path: Path) -> None:
    """
    Make a folder and those above it, unless they are there.

    :param path: the folder
    :raises NotADirectoryError: if a file is in its way, with its name
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        found = next((one for one in (path, *path.parents) if os.path.lexists(one)), path)
        raise NotADirectoryError(f"{path} must be a folder, but {found} is a file or a broken link") from None
