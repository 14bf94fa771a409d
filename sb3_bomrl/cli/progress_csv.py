"""The log of a run as CSV: a writer that a full disk does not stop, and a reader of what is whole."""

import csv
import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stable_baselines3.common.logger import KVWriter, filter_excluded_keys

from sb3_bomrl.saving.files import open_regular, read_regular, write_atomically


class ProgressCSV(KVWriter):
    """
    Write a log to a CSV file, row by row.

    Rows that cannot be written, as on a full disk, give a warning, and are written with a later row. The file never
    keeps half a row.

    :param path: the file; it is written anew
    :raises OSError: if it cannot be written at all
    :raises ValueError: if it is a folder, a FIFO or a device
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._keys: list[str] = []
        self._rows: list[str] = []
        self._n_written = 0
        self._head_is_old = False
        self._failed = False
        open_regular(path, "wb").close()

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """
        Write a row.

        :param key_values: numbers and text by name
        :param key_excluded: writers that leave out a name
        :param step: not used
        """
        values = filter_excluded_keys(key_values, key_excluded, "csv")
        values = {key: value for key, value in values.items() if isinstance(value, str) or _is_scalar(value)}
        new = [key for key in values if key not in self._keys]
        if new:
            self._rows = [row + "," * len(new) for row in self._rows]
            self._keys += new
            self._head_is_old = True
        self._rows.append(_line([values.get(key, "") for key in self._keys]))
        try:
            self._write_rows()
            self._failed = False
        except (OSError, ValueError) as error:
            if not self._failed:
                message = (
                    f"{self._path} could not be written ({error}): training goes on, and its rows are written later"
                )
                warnings.warn(message, RuntimeWarning, stacklevel=2)
            self._failed = True

    def _write_rows(self) -> None:
        if self._head_is_old:
            text = "".join(f"{line}\n" for line in (_line(self._keys), *self._rows))
            write_atomically(self._path, lambda file: file.write(text.encode()))
        else:
            text = "".join(f"{line}\n" for line in self._rows[self._n_written :])
            _append(self._path, text.encode())
        self._head_is_old, self._n_written = False, len(self._rows)

    def close(self) -> None:
        """Do nothing: the file is closed after every row."""


def _is_scalar(value: Any) -> bool:
    return isinstance(value, int | float) or getattr(value, "shape", None) == ()


def _line(values: list[Any]) -> str:
    target = io.StringIO()
    csv.writer(target, lineterminator="").writerow(values)
    return target.getvalue().replace("\n", " ")


def _append(path: Path, data: bytes) -> None:
    """Append to a file; one that cannot take all of it is cut to its old length."""
    with open_regular(path, "ab", buffering=0) as file:
        length = os.fstat(file.fileno()).st_size
        try:
            if file.write(data) != len(data):
                raise OSError(None, "only a part could be written")
        except OSError:
            file.truncate(length)
            raise


def read_progress(path: Path) -> Iterator[dict[str, str]]:
    """
    Read the whole rows of a log.

    :param path: written by :class:`ProgressCSV`, or by SB3 up to where a disk was full or the process was killed
    :return: the values of each row by name
    :raises ValueError: if it is a folder, a FIFO or a device
    """
    text = read_regular(path).decode(errors="replace").replace("\0", "")
    lines = text[: text.rfind("\n") + 1].splitlines()
    for row in csv.DictReader(lines):
        if None not in row and None not in row.values():
            yield row
