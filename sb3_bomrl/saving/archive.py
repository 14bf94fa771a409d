"""Zip archives of unknown origin: nothing is unpacked, sizes are bounded, and weight files hold no code."""

import io
import pickletools
import re
import struct
import zipfile
import zlib
from collections import Counter

from sb3_bomrl.checks import short, shortened
from sb3_bomrl.saving.tensors import STORAGES, check_tensors

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

_MAX_MEMBERS = 10_000
_MAX_VALUES = 300_000
_MAX_TEXT = 2**23
_MAX_PICKLE = 2**20
"""Members of an archive, values of its settings, bytes of those without arrays, bytes that name the tensors of a weight
file: ten times what large policies have, so that reading any file takes seconds."""

_ARRAYS = re.compile(rb'"[A-Za-z0-9+/]{1000,}=*"')
"""Arrays and pickles in JSON."""

_WEIGHT_GLOBALS = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    *(f"torch {kind}" for kind in STORAGES),
}
_FORBIDDEN_OPCODES = {"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"}
_NAMES = {"GLOBAL", "BINUNICODE", "SHORT_BINSTRING"}
"""Opcodes of what a weight file may use twice. Tuples of tuples that are used twice would take for ever to hash."""


class ArchiveError(ValueError):
    """The archive is refused; the text says why, after the name of the file."""


class DamagedArchiveError(ArchiveError):
    """The archive is not whole."""


def read_stored(data: bytes, where: str = "") -> dict[str, bytes]:
    """
    Read the members of an archive, each of which must be there once and not compressed.

    :param data: the archive
    :param where: what comes before the names of members in errors
    :return: content by name
    :raises ArchiveError: if it is damaged, or it holds too many members, one twice or one compressed
    """
    if data.count(b"PK\x01\x02") > _MAX_MEMBERS:
        raise ArchiveError(f"holds {where}more than {_MAX_MEMBERS} members")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            names = [entry.filename for entry in entries]
            if len(set(names)) < len(names):
                twice = next(name for name, count in Counter(names).items() if count > 1)
                raise ArchiveError(f"holds {where}{short(twice)} twice")
            for entry in entries:
                if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                    raise ArchiveError(
                        f"holds {where}{short(entry.filename)} compressed, {entry.file_size} bytes unpacked"
                    )
            if sum(entry.file_size for entry in entries) > len(data):
                raise ArchiveError(f"holds {where}members that overlap")
            return {name: archive.read(name) for name in names}
    except ArchiveError:
        raise
    except ZIP_ERRORS as error:
        raise DamagedArchiveError(f"is damaged{f' in {where}' if where else ''}") from error


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


def check_json_size(text: bytes) -> None:
    """
    Require settings of a model's size before they are parsed.

    :param text: JSON
    :raises ArchiveError: if it holds too many values, or too much text beside arrays
    """
    if sum(map(text.count, (b"[", b"{", b","))) > _MAX_VALUES:
        raise ArchiveError(f"has settings of more than {_MAX_VALUES} values")
    if len(text) - sum(len(found[0]) for found in _ARRAYS.finditer(text)) > _MAX_TEXT:
        raise ArchiveError(f"has settings of more than {_MAX_TEXT} bytes of text")


def clean_weights(name: str, data: bytes, variables: bool) -> bytes:
    """
    Rebuild a weight file whose pickle names nothing but tensors, numbers and text.

    :param name: its name in the model file, for errors
    :param data: the file, as ``torch.save`` wrote it
    :param variables: accept entries
    :return: the file
    :raises ArchiveError: if it is anything else
    """
    members = read_stored(data, f"{name}: ")
    pickles = [member for member in members if member.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ArchiveError(f"has a {name!r} that torch.save did not write")
    pickle = members[pickles[0]]
    if len(pickle) > _MAX_PICKLE:
        raise ArchiveError(f"has a {name!r} that names more tensors than a policy has")
    last, reusable = "", set[int | None]()
    try:
        for opcode, argument, _ in pickletools.genops(pickle):
            kind = opcode.name
            if kind in _FORBIDDEN_OPCODES or (kind == "GLOBAL" and argument not in _WEIGHT_GLOBALS):
                named = kind if argument is None else argument
                raise ArchiveError(f"has code in {name!r}: {shortened(str(named))}")
            if not variables and kind in ("SETITEM", "SETITEMS", "GLOBAL"):
                raise ArchiveError(f"has variables in {name!r}, where a model of this class has none")
            if kind in ("BINPUT", "LONG_BINPUT"):
                (reusable.add if last in _NAMES else reusable.discard)(argument)
            if kind in ("BINGET", "LONG_BINGET") and argument not in reusable:
                raise ArchiveError(f"has an object in {name!r} that is used twice")
            last = kind
    except ArchiveError:
        raise
    except ZIP_ERRORS as error:
        raise ArchiveError(f"has a damaged {name!r}") from error
    storages = pickles[0].removesuffix("data.pkl") + "data/"
    sizes = {member.removeprefix(storages): len(content) for member, content in members.items()}
    try:
        check_tensors(pickle, sizes)
    except ValueError as error:
        raise ArchiveError(f"has a damaged {name!r}: {error}") from error
    return write_zip(members)
