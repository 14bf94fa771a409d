"""Types of constructor arguments, as their annotations say."""

import inspect
import types
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np

_WORDS: dict[Any, str] = {
    bool: "True or False",
    int: "an integer",
    float: "a number",
    str: "text",
    dict: "a dictionary",
    Callable: "a function",
    type(None): "None",
}


def parameters_of(cls: type) -> dict[str, inspect.Parameter]:
    """
    Return the parameters of a class's constructor, and of those it hands its arguments on to.

    :param cls: the class
    :return: parameter by name, as the class itself or the nearest of its bases has it
    """
    found: dict[str, inspect.Parameter] = {}
    for base in reversed(cls.__mro__):
        if "__init__" in vars(base) and base is not object:
            parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
            found |= {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return found


def annotations_of(cls: type) -> dict[str, Any]:
    """
    Return the annotations of :func:`parameters_of`.

    :param cls: the class
    :return: annotation by name of the argument; text where the module postpones their evaluation
    """
    found = {name: parameter.annotation for name, parameter in parameters_of(cls).items()}
    return {name: annotation for name, annotation in found.items() if annotation is not inspect.Parameter.empty}


def plain(value: Any) -> Any:
    """
    Turn scalars of NumPy and other numbers into Python's own types, which every file can hold.

    :param value: any object
    :return: ``bool``, ``int``, ``float`` or ``str`` of the same value; anything else as it is
    """
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    return str.__str__(value) if isinstance(value, str) else value


def check_types(annotations: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    """
    Require arguments of the types that their annotations name.

    :param annotations: from :func:`annotations_of`
    :param arguments: value by name; those without annotation are accepted
    :raises ValueError: that names the argument, its value and what is accepted
    """
    for name, value in arguments.items():
        if name in annotations and not fits(plain(value), annotations[name]):
            raise ValueError(f"{name} must be {in_words(annotations[name])}, got {value!r}")


def fits(value: Any, annotation: Any) -> bool:
    """
    Return true for a value of an annotated type.

    :param value: from :func:`plain`
    :param annotation: of an argument
    :return: false for booleans as numbers; true for any value where the annotation is no type
    """
    origin = get_origin(annotation) or annotation
    if origin in (Union, types.UnionType):
        return any(fits(value, part) for part in get_args(annotation))
    if origin is Literal:
        return isinstance(value, str) and value in get_args(annotation)
    if origin is None:
        return value is None
    if origin is type and get_args(annotation):
        return isinstance(value, type) and issubclass(value, get_args(annotation)[0])
    if origin is Callable:
        return callable(value) and not isinstance(value, type)
    if origin in (int, float):
        return isinstance(value, int if origin is int else int | float) and not isinstance(value, bool)
    return not isinstance(origin, type) or isinstance(value, origin)


def in_words(annotation: Any) -> str:
    """
    Name what is accepted.

    :param annotation: of an argument
    :return: end of the sentence "it must be"
    """
    origin = get_origin(annotation) or annotation
    if origin in (Union, types.UnionType):
        return " or ".join(in_words(part) for part in get_args(annotation))
    if origin is Literal:
        return " or ".join(map(repr, get_args(annotation)))
    if origin is type and get_args(annotation):
        return f"a class derived from {get_args(annotation)[0].__name__}"
    return _WORDS.get(origin, f"a {getattr(origin, '__name__', origin)}") if origin is not None else "None"
