"""Model files of version 0.1, read as files of this version."""

import io
import json
import math
import zipfile
from collections.abc import Sequence
from typing import Any

from sb3_bomrl.saving.archive import write_zip
from sb3_bomrl.saving.model_file import ModelFile

_ADDED = {"tasks_per_chunk": None, "n_rollout_threads": 1}
_WITHOUT_RIDGE = {
    "ridge_coef": 0.0,
    "inner_gradient_tolerance": 0.0,
    "inner_target_kl": None,
    "reg_coef_now": 0.0,
}
"""Of a lower level whose distance was all that held it, solved by all of its steps."""

_REMOVED = ("_resume_from",)
_UNPROTECTED = {"inner_lr_decay": 1.0, "inner_max_kl": float("inf")}
"""Of gradient steps that are neither shortened nor smaller after the first one."""
_SEARCHED = {"BOMRL": ("implicit", "unrolled"), "MAML": (None,)}
"""Algorithms that could search, by the hypergradients they could search with."""


def brought_up_to_date(file: ModelFile, algorithms: Sequence[str]) -> ModelFile:
    """
    Give a file of version 0.1 the settings of this version; one of this version stays as it is.

    :param file: a whole archive
    :param algorithms: names of the class that loads and of those it derives from
    :return: the archive with the present names of settings
    """
    old = file.settings
    if not old or "trust_region" in old:
        return file
    if not ("_resume_from" in old or _ADDED.keys() - old.keys()):
        return _with(file, _as_before_regions(old, algorithms))
    settings = {name: value for name, value in {**_ADDED, **old}.items() if name not in _REMOVED}
    if "GradientAdaptation" in algorithms and "n_inner_steps" in settings:
        settings["n_adaptation_steps"] = settings.pop("n_inner_steps")
    if "BOMRL" in algorithms:  # one pair of settings was for the outer step and the inner solver
        settings |= {f"inner_{name}": settings[name] for name in ("cg_max_steps", "cg_damping") if name in settings}
    if not _searched(algorithms, settings):
        settings["line_search"] = False
    return _with(file, _as_before_regions(settings, algorithms))


def _as_before_regions(settings: dict[str, Any], algorithms: Sequence[str]) -> dict[str, Any]:
    """Add what a file without ``trust_region`` did."""
    settings = {**settings, "trust_region": "meta"}
    if "BOMRL" in algorithms:
        settings |= _WITHOUT_RIDGE
    if "GradientAdaptation" in algorithms and "Reptile" not in algorithms:
        settings |= _UNPROTECTED
    if "EMAML" in algorithms:  # the sum over the support steps was not divided by the root of their number
        names = ("n_adaptation_steps", "n_steps", "n_envs")
        n_steps = math.prod(settings[name] for name in names) / settings["meta_batch_size"]
        settings["credit_coef"] *= math.sqrt(n_steps)
    return settings


def _with(file: ModelFile, settings: dict[str, Any]) -> ModelFile:
    return file._replace(settings=settings, data=_with_settings(file.data, settings))


def _searched(algorithms: Sequence[str], settings: dict[str, Any]) -> bool:
    """Return whether ``line_search`` had an effect."""
    modes = [mode for name in algorithms for mode in _SEARCHED.get(name, ())]
    return settings.get("outer_step") == "trpo" and settings.get("hypergradient") in modes


def _with_settings(data: bytes, settings: dict[str, Any]) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    return write_zip({**members, "data": json.dumps(settings).encode()})
