"""Model files: SB3's zip archive, in which every setting also has a form without pickle."""

import io
import json
import pathlib
import zipfile
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from sb3_bomrl.checks import short, shortened
from sb3_bomrl.saving.archive import (
    ZIP_ERRORS,
    ArchiveError,
    DamagedArchiveError,
    check_json_size,
    clean_weights,
    read_stored,
    write_zip,
)
from sb3_bomrl.saving.files import read_regular
from sb3_bomrl.saving.safe_json import NotEncodableError, decode, encode

Path = str | pathlib.Path | io.BufferedIOBase

PICKLED, SAFE, TYPE = ":serialized:", ":safe:", ":type:"
"""Keys of a setting that is not plain JSON: SB3's pickle, our form without pickle, and its type for readers."""

_EPISODES = ("ep_info_buffer", "ep_success_buffer")
_TEXT_MEMBERS = ("_stable_baselines3_version", "system_info.txt")


class ModelFileError(ValueError):
    """The file is no model file, or a safe load refuses it."""


class DamagedFileError(ModelFileError):
    """The file is not a whole archive."""


class ModelFile(NamedTuple):
    """
    A whole archive in memory.

    :param name: path as the user gave it, for errors
    :param algorithm: name of the class that loads it, for errors
    :param data: the archive
    :param settings: its parsed ``data``
    """

    name: str
    algorithm: str
    data: bytes
    settings: dict[str, Any]

    def known(self) -> dict[str, Any]:
        """
        Decode the settings that need no unpickling.

        :return: settings by name, without those that cannot be decoded
        """
        found = {}
        for key, value in self.settings.items():
            if not is_object(value):
                found[key] = value
            elif SAFE in value:
                try:
                    found[key] = _plain(decode(value[SAFE]))
                except (ValueError, RecursionError):
                    continue
        return found

    def refuse(self, why: str) -> ModelFileError:
        """
        Make the error that refuses this file.

        :param why: end of the message, after the name of the file
        :return: the error
        """
        return ModelFileError(f"path must name a model saved by {self.algorithm}: {self.name} {shortened(why, 1000)}")

    def without_pickles(self, parts: Iterable[str]) -> io.BytesIO:
        """
        Rebuild the archive without anything that runs code: checked weights, and the names of the settings.

        :param parts: names of the state dictionaries of a model of this class
        :return: an archive for SB3's ``load``, which must be given every setting as a custom object
        :raises ValueError: if a member is unknown, missing, compressed or there twice, or a weight file holds more than
            tensors, numbers and text
        """
        variables = "pytorch_variables.pth"
        weights = {f"{part}.pth" for part in parts}
        try:
            members = read_stored(self.data)
            for name in members:
                if name not in weights and name not in ("data", variables, *_TEXT_MEMBERS):
                    raise ArchiveError(f"holds {short(name)}, which belongs to no model")
            for name in weights:
                if name not in members:
                    raise ArchiveError(f"lacks {name!r}")
            clean = {
                name: clean_weights(name, members[name], variables=name in weights)
                for name in members
                if name in weights or name == variables
            }
        except ArchiveError as error:
            raise self.refuse(str(error)) from error
        info = members.get("system_info.txt", b"").decode(errors="replace")
        clean["system_info.txt"] = "".join(c for c in info if c.isprintable() or c == "\n").encode()
        clean["data"] = json.dumps(dict.fromkeys(self.settings)).encode()
        return io.BytesIO(write_zip(clean))


def is_object(value: Any) -> bool:
    """
    Tell whether a setting is stored as an object, by pickle or in our form.

    :param value: a setting as parsed from ``data``
    :return: false for plain JSON
    """
    return isinstance(value, dict) and (PICKLED in value or SAFE in value)


def read_model_file(path: Path, algorithms: Sequence[str], trusted: bool) -> ModelFile:
    """
    Read a zip archive that one of these algorithms wrote, and check that it is whole.

    :param path: file name (``.zip`` may be left out) or binary file
    :param algorithms: names of the class that loads and of those it derives from
    :param trusted: accept compressed members of any size
    :return: the archive
    :raises FileNotFoundError: if there is no such file
    :raises ValueError: if it is no whole zip archive, or another algorithm's
    """
    file = _read(path, algorithms[0], trusted)
    writer = file.settings.get("_algorithm_name", "another library")
    if writer not in algorithms:
        raise file.refuse(f"was saved by {shortened(str(writer))}")
    return file


def saved_algorithm(path: Path, trusted: bool) -> str:
    """
    Read which algorithm wrote a model file.

    :param path: file name (``.zip`` may be left out) or binary file
    :param trusted: accept compressed members of any size
    :return: name of its class
    :raises FileNotFoundError: if there is no such file
    :raises ValueError: if it is no whole zip archive, or another library's
    """
    file = _read(path, "this package", trusted)
    name = file.settings.get("_algorithm_name")
    if not isinstance(name, str):
        raise file.refuse("was saved by another library")
    return name


def _read(path: Path, algorithm: str, trusted: bool) -> ModelFile:
    file = ModelFile(repr(path), algorithm, read_bytes(path), {})
    try:
        if trusted:
            with zipfile.ZipFile(io.BytesIO(file.data)) as archive:
                text, broken = archive.read("data"), archive.testzip()
        else:
            text, broken = read_stored(file.data)["data"], None
            check_json_size(text)
        settings = json.loads(text.decode())
    except DamagedArchiveError as error:
        raise DamagedFileError(str(file.refuse(str(error)))) from error
    except ArchiveError as error:
        raise file.refuse(str(error)) from error
    except ZIP_ERRORS as error:
        raise DamagedFileError(str(file.refuse("is not a whole model file"))) from error
    if broken is not None:
        raise DamagedFileError(str(file.refuse(f"is damaged at {short(broken)}")))
    if not isinstance(settings, dict):
        raise file.refuse("is not a whole model file")
    return file._replace(settings=settings)


def read_bytes(path: Path) -> bytes:
    """
    Read a file that may be a model file.

    :param path: name of a regular file (``.zip`` may be left out) or binary file
    :return: its content
    :raises FileNotFoundError: if there is no such file
    :raises ValueError: if it is a folder, a FIFO or a device
    """
    if isinstance(path, io.IOBase):
        path.seek(0)
        return path.read()
    names = (pathlib.Path(path), pathlib.Path(f"{path}.zip"))
    found = [name for name in names if name.exists()]
    if not found:
        raise FileNotFoundError(f"path must name a saved model: neither {str(path)!r} nor {str(names[1])!r} exists")
    file = next((name for name in found if name.is_file()), None)
    if file is None:
        raise ModelFileError(f"path must name a saved model, got {str(path)!r}, which is no regular file")
    try:
        return read_regular(file)
    except ValueError as error:
        raise ModelFileError(f"path must name a saved model, but {error}") from error


def _plain(value: Any) -> Any:
    """Turn a setting that is a NumPy number into Python's; within a setting numbers keep their type, as means need."""
    return value.item() if isinstance(value, np.generic) else value


def add_safe_form(data: bytes, attributes: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
    """
    Add the form without pickle beside every pickle in an archive of SB3's.

    :param data: the archive
    :param attributes: values of the settings
    :return: the new archive, and for the settings that have no such form, the type by the setting's name
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    settings, unknown = json.loads(members["data"]), {}
    for key, value in settings.items():
        if not is_object(value):
            continue
        settings[key] = {TYPE: value[TYPE], PICKLED: value[PICKLED]}
        try:
            settings[key][SAFE] = encode(
                _without_unknown(attributes[key]) if key in _EPISODES else _plain(attributes[key])
            )
        except NotEncodableError as error:
            unknown[key] = str(error)
    members["data"] = json.dumps(settings, indent=1).encode()
    return write_zip(members), unknown


def _without_unknown(episodes: deque[Any] | None) -> deque[Any] | None:
    """Statistics of episodes without what only pickle can save, such as a user's tasks in a ``Monitor``'s infos."""
    if episodes is None:
        return None
    kept = ({k: v for k, v in one.items() if _is_encodable(v)} if isinstance(one, dict) else one for one in episodes)
    return deque(kept, episodes.maxlen)


def _is_encodable(value: Any) -> bool:
    with suppress(NotEncodableError):
        encode(value)
        return True
    return False
