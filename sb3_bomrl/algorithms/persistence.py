"""Saving and loading: atomic files, clear refusals, and everything that continuing a run needs."""

import io
import json
import pathlib
import tempfile
import warnings
import zipfile
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch as th
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecNormalize

Path = str | pathlib.Path | io.BufferedIOBase
SelfPersistent = TypeVar("SelfPersistent", bound="PersistentAlgorithm")

_RMS_FIELDS = ("mean", "var", "count")


class PersistentAlgorithm(OnPolicyAlgorithm):
    """
    What every meta-algorithm does with files, on top of SB3's ``save`` and ``load``.

    - A path is written under a temporary name and renamed, so an interrupted save leaves the old file as it was.
    - ``load`` refuses a file that another algorithm wrote, and one that is not a whole zip archive.
    - The statistics of a ``VecNormalize`` are saved with the model and put into the one given to ``load``.
    """

    _normalizer_statistics: dict[str, Any] | None

    def _excluded_save_params(self) -> list[str]:
        return [
            *super()._excluded_save_params(),
            "actor",
            "_task_distribution",
            "_collector",
            "_normalizer",
            "_callback",
        ]

    def save(self, path: Path, exclude: Iterable[str] | None = None, include: Iterable[str] | None = None) -> None:
        """
        Save the model, SB3's zip format.

        :param path: file name (``.zip`` is added if it has no suffix) or binary file
        :param exclude: attributes to leave out beside the default ones
        :param include: attributes to put in although they are left out by default
        :raises FloatingPointError: if a parameter is not finite: nothing is written then
        """
        for name, value in self.policy.named_parameters():
            if not th.isfinite(value).all():
                raise FloatingPointError(f"policy parameter {name!r} is not finite: the model was not saved")
        self._normalizer_statistics = normalizer_statistics(self.get_vec_normalize_env())
        self._algorithm_name = type(self).__name__
        if isinstance(path, io.IOBase):
            super().save(path, exclude, include)
            return
        target = _with_suffix(pathlib.Path(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as folder:
            written = pathlib.Path(folder) / "model.zip"
            super().save(written, exclude, include)
            written.replace(target)

    @classmethod
    def load(
        cls: type[SelfPersistent],
        path: Path,
        env: GymEnv | None = None,
        device: th.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        **kwargs: Any,
    ) -> SelfPersistent:
        """
        Load a model, as SB3 does. Only load files you trust: like SB3's, they contain pickled objects.

        :param path: file name (``.zip`` may be left out) or binary file
        :param env: environment to go on with; may have another number of environments than the saved one
        :param device: device for the parameters
        :param custom_objects: replacements for saved objects that cannot be unpickled
        :param print_system_info: print the saved and the current system
        :param force_reset: reset the environment before training
        :param kwargs: attributes to change
        :return: the model
        :raises FileNotFoundError: if there is no such file
        :raises ValueError: if the file is no whole zip archive, was written by another algorithm, or does not fit the
            environment's spaces
        """
        check_file(path, [base.__name__ for base in cls.__mro__ if issubclass(base, PersistentAlgorithm)])
        model = super().load(path, env, device, custom_objects, print_system_info, force_reset, **kwargs)
        if env is not None:
            restore_normalizer(model.get_vec_normalize_env(), model._normalizer_statistics)
        return model


def _with_suffix(path: pathlib.Path) -> pathlib.Path:
    return path if path.suffix else path.with_suffix(".zip")


def check_file(path: Path, algorithms: Sequence[str]) -> None:
    """
    Require a whole zip archive that one of these algorithms wrote.

    :param path: file name (``.zip`` may be left out) or binary file
    :param algorithms: names of the class that loads and of those it derives from
    :raises FileNotFoundError: if there is no such file
    :raises ValueError: if it is no whole zip archive, or another algorithm's
    """
    algorithm = algorithms[0]
    source: Any = path
    if not isinstance(path, io.IOBase):
        source = pathlib.Path(path)
        if not source.exists():
            source = pathlib.Path(f"{path}.zip")
        if not source.exists():
            raise FileNotFoundError(f"path must name a saved model: neither {str(path)!r} nor {str(source)!r} exists")
    try:
        with zipfile.ZipFile(source) as archive:
            broken = archive.testzip()
            data = json.loads(archive.read("data")) if broken is None else {}
    except (zipfile.BadZipFile, KeyError, json.JSONDecodeError, EOFError, OSError) as error:
        raise ValueError(f"path must name a model saved by {algorithm}: {path!r} is not a whole model file") from error
    if broken is not None:
        raise ValueError(f"path must name a model saved by {algorithm}: {path!r} is damaged at {broken!r}")
    if isinstance(source, io.IOBase):
        source.seek(0)
    writer = data.get("_algorithm_name", "another library")
    if writer not in algorithms:
        raise ValueError(f"path must name a model saved by {algorithm}: {path!r} was saved by {writer}")


def normalizer_statistics(vec_normalize: VecNormalize | None) -> dict[str, Any] | None:
    """
    The running statistics of a ``VecNormalize`` as plain numbers.

    :param vec_normalize: the wrapper, or ``None``
    :return: nested dictionary of lists, or ``None`` without a wrapper
    """
    if vec_normalize is None:
        return None
    obs_rms = getattr(vec_normalize, "obs_rms", None)
    parts = obs_rms if isinstance(obs_rms, dict) else {"": obs_rms}
    return {
        "obs": {key: _numbers(rms) for key, rms in parts.items() if rms is not None},
        "returns": _numbers(vec_normalize.ret_rms),
    }


def _numbers(rms: RunningMeanStd) -> dict[str, Any]:
    return {field: np.asarray(getattr(rms, field)).tolist() for field in _RMS_FIELDS}


def restore_normalizer(vec_normalize: VecNormalize | None, statistics: dict[str, Any] | None) -> None:
    """
    Put saved statistics into a ``VecNormalize``.

    :param vec_normalize: the wrapper, or ``None``
    :param statistics: from :func:`normalizer_statistics`
        (a warning says so if exactly one of the two is ``None``)
    """
    if (vec_normalize is None) != (statistics is None):
        saved, given = ("with" if x is not None else "without" for x in (statistics, vec_normalize))
        warnings.warn(
            f"env was given {given} VecNormalize, but the model was saved {saved} it: the policy may see other "
            "observations than it learned from",
            stacklevel=3,
        )
    if vec_normalize is None or statistics is None:
        return
    obs_rms = getattr(vec_normalize, "obs_rms", None)
    parts = obs_rms if isinstance(obs_rms, dict) else {"": obs_rms}
    for rms, numbers in [(parts[key], value) for key, value in statistics["obs"].items()] + [
        (vec_normalize.ret_rms, statistics["returns"])
    ]:
        for field in _RMS_FIELDS:
            current = np.asarray(getattr(rms, field))
            value = np.asarray(numbers[field], dtype=np.float64)
            setattr(rms, field, float(value) if current.ndim == 0 and field == "count" else value)
