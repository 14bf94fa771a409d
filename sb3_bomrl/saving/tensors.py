"""Where the tensors of a weight file lie: within what the file holds of them, which torch does not check."""

import io
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

STORAGES = {
    "FloatStorage": 4,
    "DoubleStorage": 8,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "LongStorage": 8,
    "IntStorage": 4,
    "ShortStorage": 2,
    "CharStorage": 1,
    "ByteStorage": 1,
    "BoolStorage": 1,
}
"""Kinds of storages, and the bytes of one of their elements."""


class _Storage(NamedTuple):
    name: str
    n_elements: int


class _Tensor:
    """Stands for a tensor."""


def check_tensors(data: bytes, sizes: Mapping[str, int]) -> None:
    """
    Require every tensor to lie within its storage, and every storage to be there as long as it is said to be.

    :param data: pickle of a weight file, of which is known that it names nothing but tensors
    :param sizes: bytes of the file's storages by name
    :raises ValueError: if a tensor or a storage does not, or the pickle is none of torch's
    """
    try:
        _Reader(io.BytesIO(data), sizes).load()
    except (pickle.UnpicklingError, LookupError, TypeError, AttributeError, EOFError) as error:
        raise ValueError(f"the pickle is none of torch's: {type(error).__name__}") from error


class _Reader(pickle._Unpickler):  # the one in C takes as much memory as a file asks for
    def __init__(self, file: io.BytesIO, sizes: Mapping[str, int]) -> None:
        super().__init__(file)
        self._sizes = sizes

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _checked_tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *_: tensor
        if module == "torch" and name in STORAGES:
            return name
        raise pickle.UnpicklingError(name)

    def persistent_load(self, pid: Any) -> _Storage:
        _, kind, name, _, n_elements = pid
        held = self._sizes[name]
        if not _are_counts(n_elements) or n_elements * STORAGES[kind] != held:
            raise ValueError(f"a storage of {n_elements!r:.40} elements has {held} bytes")
        return _Storage(name, n_elements)


def _checked_tensor(storage: _Storage, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    if not (isinstance(storage, _Storage) and len(shape) == len(strides) and _are_counts(offset, *shape, *strides)):
        raise ValueError(f"a tensor at {offset!r:.40} has shape {shape!r:.80} and strides {strides!r:.80}")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if 0 not in shape and last >= storage.n_elements:
        raise ValueError(
            f"a tensor of shape {shape!r:.80} and strides {strides!r:.80} at {offset!r:.40} is not within its storage "
            f"of {storage.n_elements} elements"
        )
    return _Tensor()


def _are_counts(*values: Any) -> bool:
    return all(type(value) is int and value >= 0 for value in values)
