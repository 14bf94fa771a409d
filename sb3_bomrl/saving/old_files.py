"""Model files of version 0.1, read as files of this version."""

import io
import json
import zipfile
from typing import Any

from sb3_bomrl.saving.archive import write_zip
from sb3_bomrl.saving.model_file import ModelFile

_ADDED = {"tasks_per_chunk": None, "n_rollout_threads": 1}
_REMOVED = ("_resume_from",)
_SEARCHED = {"BOMRL": ("implicit", "unrolled"), "MAML": (None,)}
"""Algorithms that could search, by the hypergradients they could search with."""


def brought_up_to_date(file: ModelFile) -> ModelFile:
    """
    Give a file of version 0.1 the settings of this version; one of this version stays as it is.

    :param file: a whole archive
    :return: the archive with the present names of settings
    """
    if not file.settings or _ADDED.keys() <= file.settings.keys():
        return file
    settings = {name: value for name, value in {**_ADDED, **file.settings}.items() if name not in _REMOVED}
    writer = settings.get("_algorithm_name")
    if writer != "BOMRL" and "n_inner_steps" in settings:
        settings["n_adaptation_steps"] = settings.pop("n_inner_steps")
    if not _searched(writer, settings):
        settings["line_search"] = False
    return file._replace(settings=settings, data=_with_settings(file.data, settings))


def _searched(writer: Any, settings: dict[str, Any]) -> bool:
    """Return whether ``line_search`` had an effect."""
    return settings.get("outer_step") == "trpo" and settings.get("hypergradient") in _SEARCHED.get(writer, ())


def _with_settings(data: bytes, settings: dict[str, Any]) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    return write_zip({**members, "data": json.dumps(settings).encode()})
