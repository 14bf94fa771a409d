"""Model files: SB3's zip archive, in which every setting also has a form without pickle."""

import io
import json
import pathlib
import pickletools
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sb3_bomrl.saving.safe_json import NotEncodableError, decode, encode

Path = str | pathlib.Path | io.BufferedIOBase

PICKLED, SAFE, TYPE = ":serialized:", ":safe:", ":type:"
"""Keys of a setting that is not plain JSON: SB3's pickle, our form without pickle, and its type for readers."""

ZIP_ERRORS = (
    zipfile.BadZipFile,
    KeyError,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
    OverflowError,
    RecursionError,
    MemoryError,
    struct.error,
    zlib.error,
)
"""Errors that reading a damaged archive can raise."""

_TEXT_MEMBERS = ("_stable_baselines3_version", "system_info.txt")
_STORAGES = ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
_WEIGHT_GLOBALS = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    *(f"torch {kind}Storage" for kind in _STORAGES),
}
_FORBIDDEN_OPCODES = {"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"}


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
                    found[key] = decode(value[SAFE])
                except (ValueError, RecursionError):
                    continue
        return found

    def refuse(self, why: str) -> ModelFileError:
        """
        Make the error that refuses this file.

        :param why: end of the message, after the name of the file
        :return: the error
        """
        return ModelFileError(f"path must name a model saved by {self.algorithm}: {self.name} {why}")

    def without_pickles(self, parts: Iterable[str]) -> io.BytesIO:
        """
        Rebuild the archive without anything that runs code: checked weights, and the names of the settings.

        :param parts: names of the state dictionaries of a model of this class
        :return: an archive for SB3's ``load``, which must be given every setting as a custom object
        :raises ValueError: if a member is unknown, missing, compressed or there twice, or a weight file holds more than
            tensors, numbers and text
        """
        weights = {f"{part}.pth" for part in parts} | {"pytorch_variables.pth"}
        members = _read_stored(self, self.data)
        for name in members:
            if name not in weights and name not in ("data", *_TEXT_MEMBERS):
                raise self.refuse(f"holds {name!r}, which belongs to no model")
        for name in weights - {"pytorch_variables.pth"}:
            if name not in members:
                raise self.refuse(f"lacks {name!r}")
        clean = {name: self._clean_weights(name, data) for name, data in members.items() if name in weights}
        info = members.get("system_info.txt", b"").decode(errors="replace")
        clean["system_info.txt"] = "".join(c for c in info if c.isprintable() or c == "\n").encode()
        clean["data"] = json.dumps(dict.fromkeys(self.settings)).encode()
        return io.BytesIO(write_zip(clean))

    def _clean_weights(self, name: str, data: bytes) -> bytes:
        """Return a weight file whose pickle names nothing but tensors; refuse any other."""
        members = _read_stored(self, data, f"{name}: ")
        pickles = [member for member in members if member.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise self.refuse(f"has a {name!r} that torch.save did not write")
        try:
            for opcode, argument, _ in pickletools.genops(members[pickles[0]]):
                if opcode.name in _FORBIDDEN_OPCODES or (opcode.name == "GLOBAL" and argument not in _WEIGHT_GLOBALS):
                    raise self.refuse(f"has code in {name!r}: {argument if argument is not None else opcode.name}")
                if name == "pytorch_variables.pth" and opcode.name in ("SETITEM", "SETITEMS", "GLOBAL"):
                    raise self.refuse(f"has variables in {name!r}, where a model of this class has none")
        except ModelFileError:
            raise
        except ZIP_ERRORS as error:
            raise self.refuse(f"has a damaged {name!r}") from error
        return write_zip(members)


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
    file = ModelFile(repr(path), algorithms[0], _read_bytes(path), {})
    if not trusted:
        _read_stored(file, file.data)
    try:
        with zipfile.ZipFile(io.BytesIO(file.data)) as archive:
            broken = archive.testzip()
            settings = json.loads(archive.read("data").decode()) if broken is None else {}
    except ZIP_ERRORS as error:
        raise DamagedFileError(str(file.refuse("is not a whole model file"))) from error
    if broken is not None:
        raise DamagedFileError(str(file.refuse(f"is damaged at {broken!r}")))
    if not isinstance(settings, dict):
        raise file.refuse("is not a whole model file")
    writer = settings.get("_algorithm_name", "another library")
    if writer not in algorithms:
        raise file.refuse(f"was saved by {writer}")
    return file._replace(settings=settings)


def _read_bytes(path: Path) -> bytes:
    if isinstance(path, io.IOBase):
        path.seek(0)
        return path.read()
    source = pathlib.Path(path)
    if not source.exists():
        source = pathlib.Path(f"{path}.zip")
    if not source.exists():
        raise FileNotFoundError(f"path must name a saved model: neither {str(path)!r} nor {str(source)!r} exists")
    return source.read_bytes()


def _read_stored(file: ModelFile, data: bytes, where: str = "") -> dict[str, bytes]:
    """Read the members of an archive, each of which must be there once and not compressed."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            names = [entry.filename for entry in entries]
            if len(set(names)) < len(names):
                twice = next(name for name, count in Counter(names).items() if count > 1)
                raise file.refuse(f"holds {where}{twice!r} twice")
            for entry in entries:
                if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                    raise file.refuse(f"holds {where}{entry.filename!r} compressed, {entry.file_size} bytes unpacked")
            if sum(entry.file_size for entry in entries) > len(data):
                raise file.refuse(f"holds {where}members that overlap")
            return {name: archive.read(name) for name in names}
    except ModelFileError:
        raise
    except ZIP_ERRORS as error:
        kind = ModelFileError if where else DamagedFileError
        raise kind(str(file.refuse(f"is damaged{f' in {where}' if where else ''}"))) from error


def write_zip(members: dict[str, bytes]) -> bytes:
    """
    Make a zip archive without compression.

    :param members: content by name
    :return: the archive
    """
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return target.getvalue()


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
            settings[key][SAFE] = encode(attributes[key])
        except NotEncodableError as error:
            unknown[key] = str(error)
    members["data"] = json.dumps(settings, indent=1).encode()
    return write_zip(members), unknown
