"""Settings as JSON without pickle: only the types and classes listed here are written and read."""

import base64
import binascii
import math
import pathlib
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common import buffers, policies, torch_layers, utils
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike

from sb3_bomrl.policies.extractors import NormalizedCombinedExtractor, NormalizedFlattenExtractor
from sb3_bomrl.policies.normalized import NormalizedMlpPolicy, NormalizedMultiInputPolicy
from sb3_bomrl.policies.tabular import TabularPolicy

TAG = ":kind:"
"""Key that marks an encoded object; a dictionary of the user's with this key is encoded as pairs."""

_ACTIVATIONS = (
    "Tanh",
    "ReLU",
    "LeakyReLU",
    "ELU",
    "GELU",
    "SiLU",
    "Mish",
    "Sigmoid",
    "Softplus",
    "CELU",
    "SELU",
    "ReLU6",
)
_OPTIMIZERS = ("Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "SGD", "Adagrad")


def _class_name(cls: type) -> str:
    """Qualified name of a class; our own are named by their package, so that files can move within it."""
    package = cls.__module__.rpartition(".")[0] if cls.__module__.startswith("sb3_bomrl.") else cls.__module__
    return f"{package}.{cls.__qualname__}"


CLASSES: dict[str, type] = {
    _class_name(cls): cls
    for cls in (
        policies.ActorCriticPolicy,
        policies.ActorCriticCnnPolicy,
        policies.MultiInputActorCriticPolicy,
        NormalizedMlpPolicy,
        NormalizedMultiInputPolicy,
        TabularPolicy,
        torch_layers.FlattenExtractor,
        torch_layers.NatureCNN,
        torch_layers.CombinedExtractor,
        NormalizedFlattenExtractor,
        NormalizedCombinedExtractor,
        buffers.RolloutBuffer,
        buffers.DictRolloutBuffer,
        RMSpropTFLike,
        *(getattr(th.nn, name) for name in _ACTIVATIONS),
        *(getattr(th.optim, name) for name in _OPTIMIZERS),
    )
}
"""The classes that a file may name."""

_DTYPES = {text: dtype for dtype in map(np.dtype, "?bBhHiIqQefd") for text in (dtype.name, dtype.str)}


class NotEncodableError(TypeError):
    """The object could only be saved by pickle."""


def encode(value: Any) -> Any:
    """
    Turn a value into JSON.

    :param value: number, text, ``None``, list, tuple, dictionary, deque, array, NumPy generator, Gymnasium space,
        schedule of SB3, or a class in :data:`CLASSES`; containers may be nested. NumPy's numbers become Python's, and
        paths become text
    :return: JSON for :func:`decode`
    :raises NotEncodableError: for anything else, with the type of the unknown object
    """
    if value is None or isinstance(value, bool | str) or type(value) in (int, float):
        return value
    if type(value) is list:
        return [encode(part) for part in value]
    if type(value) is dict and all(isinstance(key, str) for key in value) and TAG not in value:
        return {key: encode(part) for key, part in value.items()}
    if isinstance(value, type) and CLASSES.get(_class_name(value)) is value:
        return {TAG: "class", "name": _class_name(value)}
    for kind, (types, to_json, _) in _KINDS.items():
        if type(value) in types:
            return {TAG: kind, **{key: encode(part) for key, part in to_json(value).items()}}
    if isinstance(value, np.generic) and value.dtype.str in _DTYPES:
        return {TAG: "scalar", "array": encode(np.asarray(value))}
    if isinstance(value, pathlib.PurePath):
        return str(value)
    name = getattr(value, "__qualname__", None) if isinstance(value, type) or callable(value) else None
    raise NotEncodableError(name or type(value).__qualname__)


def decode(value: Any) -> Any:
    """
    Turn JSON from :func:`encode` back into the value.

    Nothing is imported, and only the constructors of known types are called.

    :param value: parsed JSON
    :return: the value
    :raises ValueError: if :func:`encode` does not write such JSON
    """
    if isinstance(value, list):
        return [decode(part) for part in value]
    if not isinstance(value, dict):
        return value
    if TAG not in value:
        return {key: decode(part) for key, part in value.items()}
    fields = {key: decode(part) for key, part in value.items() if key != TAG}
    kind = value[TAG]
    try:
        if kind == "class":
            return CLASSES[fields["name"]]
        if kind == "scalar":
            return fields["array"][()]
        return _KINDS[kind][2](fields)
    except (KeyError, TypeError, ValueError, AttributeError, AssertionError, OverflowError, IndexError) as error:
        shown = str({key: part for key, part in value.items() if isinstance(part, str | int)})[:200]
        raise ValueError(f"{shown} is nothing that a model file may hold ({error})") from error


# ---------------------------------------------------------------------- one pair of functions per kind


def _array(fields: dict[str, Any]) -> np.ndarray:
    dtype, shape = _DTYPES[fields["dtype"]], tuple(fields["shape"])
    if not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"an array of shape {shape}")
    try:
        data = base64.b64decode(_text(fields["data"]), validate=True)
    except binascii.Error as error:
        raise ValueError("the data of an array are not base64") from error
    return np.frombuffer(data, dtype).reshape(shape).copy()


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{type(value).__name__} in place of text")
    return value


def _generator_state(generator: np.random.Generator) -> dict[str, Any]:
    bits = generator.bit_generator
    if type(bits) is not np.random.PCG64:
        raise NotEncodableError(type(bits).__qualname__)
    return dict(bits.state)


def _generator(fields: dict[str, Any]) -> np.random.Generator:
    bits = np.random.PCG64(0)
    bits.state = fields  # type: ignore[assignment]
    return np.random.Generator(bits)


def _box(fields: dict[str, Any]) -> spaces.Box:
    return spaces.Box(fields["low"], fields["high"], dtype=_DTYPES[fields["dtype"]].type)


def _discrete(n: Any, start: Any, dtype: str) -> spaces.Discrete:
    if type(n) is not int or type(start) is not int:
        raise ValueError(f"a Discrete space of {n!r} elements from {start!r}")
    if dtype == "int64":  # Gymnasium before 1.2 knows no other
        return spaces.Discrete(n, start=start)
    return spaces.Discrete(n, start=start, dtype=_DTYPES[dtype].type)


def _space_dtype(space: spaces.Space) -> str:
    return _plain_dtype(np.empty(0, space.dtype)) and str(space.dtype)


def _dict_space(fields: dict[str, Any]) -> spaces.Dict:
    if not all(isinstance(part, spaces.Space) for _, part in fields["spaces"]):
        raise ValueError("a Dict space holds something that is not a space")
    return spaces.Dict([(_text(key), part) for key, part in fields["spaces"]])


def _schedule(fields: dict[str, Any]) -> utils.FloatSchedule:
    inner = fields["value_schedule"]
    if not isinstance(inner, utils.ConstantSchedule | utils.LinearSchedule):
        raise ValueError(f"a schedule holds {inner!r}")
    return utils.FloatSchedule(inner)


def _numbers(fields: dict[str, Any], *names: str) -> list[float]:
    numbers = [fields[name] for name in names]
    if not all(type(number) in (int, float) and math.isfinite(number) for number in numbers):
        raise ValueError(f"a schedule of {numbers}")
    return numbers


def _pairs(fields: dict[str, Any]) -> dict[Any, Any]:
    return dict(fields["items"])


_KINDS: dict[str, tuple[tuple[type, ...], Callable[[Any], dict[str, Any]], Callable[[dict[str, Any]], Any]]] = {
    "tuple": ((tuple,), lambda x: {"items": list(x)}, lambda f: tuple(f["items"])),
    "dict": ((dict,), lambda x: {"items": [list(pair) for pair in x.items()]}, _pairs),
    "OrderedDict": (
        (OrderedDict,),
        lambda x: {"items": [list(pair) for pair in x.items()]},
        lambda f: OrderedDict(_pairs(f)),
    ),
    "deque": (
        (deque,),
        lambda x: {"items": list(x), "maxlen": x.maxlen},
        lambda f: deque(f["items"], maxlen=f["maxlen"]),
    ),
    "array": (
        (np.ndarray,),
        lambda x: {
            "dtype": _plain_dtype(x),
            "shape": list(x.shape),
            "data": base64.b64encode(np.ascontiguousarray(x).tobytes()).decode(),
        },
        _array,
    ),
    "generator": ((np.random.Generator,), _generator_state, _generator),
    "Box": ((spaces.Box,), lambda x: {"low": x.low, "high": x.high, "dtype": _space_dtype(x)}, _box),
    "Discrete": (
        (spaces.Discrete,),
        lambda x: {"n": int(x.n), "start": int(x.start), "dtype": _space_dtype(x)},
        lambda f: _discrete(f["n"], f["start"], f.get("dtype", "int64")),
    ),
    "MultiDiscrete": (
        (spaces.MultiDiscrete,),
        lambda x: {"nvec": x.nvec, "start": x.start, "dtype": _space_dtype(x)},
        lambda f: spaces.MultiDiscrete(f["nvec"], _DTYPES[f.get("dtype", "int64")].type, start=f["start"]),
    ),
    "MultiBinary": (
        (spaces.MultiBinary,),
        lambda x: {"n": x.n if isinstance(x.n, int) else [int(n) for n in x.n]},
        lambda f: spaces.MultiBinary(f["n"]),
    ),
    "Dict": ((spaces.Dict,), lambda x: {"spaces": [list(pair) for pair in x.spaces.items()]}, _dict_space),
    "FloatSchedule": ((utils.FloatSchedule,), lambda x: {"value_schedule": x.value_schedule}, _schedule),
    "ConstantSchedule": (
        (utils.ConstantSchedule,),
        lambda x: {"val": x.val},
        lambda f: utils.ConstantSchedule(*_numbers(f, "val")),
    ),
    "LinearSchedule": (
        (utils.LinearSchedule,),
        lambda x: {"start": x.start, "end": x.end, "end_fraction": x.end_fraction},
        lambda f: utils.LinearSchedule(*_numbers(f, "start", "end", "end_fraction")),
    ),
}


def _plain_dtype(array: np.ndarray) -> str:
    if array.dtype.str not in _DTYPES:
        raise NotEncodableError(f"array of {array.dtype}")
    return array.dtype.str
