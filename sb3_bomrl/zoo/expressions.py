"""Arguments written as text in configuration files and on the command line, read without running anything."""

import ast
from typing import Any

from sb3_bomrl.saving.safe_json import CLASSES

_LONGEST = 200
"""Characters of a text in an error."""


def _known_names() -> dict[str, type]:
    """Classes by the names that configuration files give them: ``nn.Tanh``, ``th.optim.Adam``, ``NatureCNN``."""
    names: dict[str, type] = {}
    for cls in CLASSES.values():
        module, name = cls.__module__, cls.__name__
        if module.startswith("torch.nn."):
            names |= dict.fromkeys((f"nn.{name}", f"th.nn.{name}", f"torch.nn.{name}"), cls)
        elif module.startswith("torch.optim."):
            names |= dict.fromkeys((f"th.optim.{name}", f"torch.optim.{name}"), cls)
        else:
            names[name] = cls
    return names


KNOWN_NAMES: dict[str, type] = _known_names()
"""Classes that an expression may name: those that a model file may."""


def read_expression(name: str, text: str) -> Any:
    """
    Read an argument such as ``dict(net_arch=[64, 64], activation_fn=nn.Tanh)``.

    Literals, lists, tuples, dictionaries, ``dict(...)`` with keywords and the names in :data:`KNOWN_NAMES` are read.
    Nothing is evaluated.

    :param name: the argument, for the error
    :param text: its value
    :return: the value
    :raises ValueError: for anything else
    """
    try:
        return _value(ast.parse(text.strip(), mode="eval").body)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        reason = str(error).partition("\n")[0][:_LONGEST] or type(error).__name__
        raise ValueError(
            f"{name} must be made of literals, dict(...) and known names such as nn.Tanh or NatureCNN, "
            f"got {text[:_LONGEST]!r}: {reason}"
        ) from None


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.List):
        return [_value(part) for part in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(part) for part in node.elts)
    if isinstance(node, ast.Dict) and None not in node.keys:
        return {_value(key): _value(part) for key, part in zip(node.keys, node.values, strict=True) if key is not None}
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "dict" and not node.args:
        if any(keyword.arg is None for keyword in node.keywords):
            raise ValueError("** is not read")
        return {str(keyword.arg): _value(keyword.value) for keyword in node.keywords}
    if isinstance(node, ast.Name | ast.Attribute):
        if ast.unparse(node) not in KNOWN_NAMES:
            raise ValueError(f"{ast.unparse(node)} is no known name")
        return KNOWN_NAMES[ast.unparse(node)]
    return ast.literal_eval(node)
