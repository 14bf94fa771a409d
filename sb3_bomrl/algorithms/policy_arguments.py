"""Keyword arguments of policies: plain ones, of the types that the policy's constructor names."""

from collections.abc import Mapping
from typing import Any, get_origin

import numpy as np

from sb3_bomrl.algorithms.argument_types import annotations_of, check_types, plain
from sb3_bomrl.checks import LARGEST_COUNT

_OWN = ("features_extractor_kwargs",)
"""Those that go to a class of the user's, which may want arrays."""


def plain_policy_kwargs(policy: type, policy_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """
    Turn NumPy's numbers and arrays into Python's numbers and lists, so that a saved model loads anywhere.

    :param policy: class of the policy
    :param policy_kwargs: keyword arguments of the policy; those that its constructor does not annotate stay
    :return: a new dictionary
    """
    names = annotations_of(policy).keys() - set(_OWN)
    found = {name: _plain(value) if name in names else value for name, value in policy_kwargs.items()}
    if isinstance(found.get("net_arch"), tuple):
        found["net_arch"] = list(found["net_arch"])
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if type(value) in (list, tuple):
        return type(value)(map(_plain, value))
    if type(value) is dict:
        return {key: _plain(part) for key, part in value.items()}
    return plain(value)


def check_policy_kwargs(policy: type, policy_kwargs: Mapping[str, Any]) -> None:
    """
    Check keyword arguments of a policy against the types that its constructor names.

    :param policy: class of the policy
    :param policy_kwargs: from :func:`plain_policy_kwargs`
    :raises ValueError: that names the argument, its value and what is accepted
    """
    annotations = annotations_of(policy)
    for name, value in policy_kwargs.items():
        makes = get_origin(annotations.get(name)) is type and callable(value) and not isinstance(value, type)
        if name in annotations and not makes:  # a function may stand for a class
            label = f"policy_kwargs[{name!r}]"
            check_types({label: annotations[name]}, {label: value})
    net_arch = policy_kwargs.get("net_arch")
    if net_arch is None or "net_arch" not in annotations:
        return
    parts = net_arch[0] if isinstance(net_arch, list) and isinstance((*net_arch, None)[0], dict) else net_arch
    if not all(map(_are_layers, parts.values() if isinstance(parts, dict) else [parts])):
        raise ValueError(
            "policy_kwargs['net_arch'] must be a list of integers of at least 1, or dict(pi=..., vf=...) of those, "
            f"got {net_arch!r}"
        )


def _are_layers(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(type(n) is int and 0 < n <= LARGEST_COUNT for n in value)
