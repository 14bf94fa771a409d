"""Saving and loading: atomic files, clear refusals, and everything that continuing a run needs."""

import io
import pathlib
import warnings
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import numpy as np
import torch as th
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.save_util import load_from_zip_file, recursive_getattr
from stable_baselines3.common.type_aliases import GymEnv, TensorDict
from stable_baselines3.common.vec_env import VecNormalize

from sb3_bomrl.saving.checks import (
    AllocationLimit,
    check_module_state,
    check_normalizer_statistics,
    check_optimizer_state,
    check_settings,
)
from sb3_bomrl.saving.files import write_atomically
from sb3_bomrl.saving.model_file import ModelFile, ModelFileError, Path, add_safe_form, is_object, read_model_file

SelfPersistent = TypeVar("SelfPersistent", bound="PersistentAlgorithm")

_RMS_FIELDS = ("mean", "var", "count")


class PersistentAlgorithm(OnPolicyAlgorithm):
    """
    What every meta-algorithm does with files, on top of SB3's ``save`` and ``load``.

    - A path is written under a temporary name and renamed, so an interrupted save leaves the old file as it was.
    - Every setting that the package knows is saved in a form that needs no pickle; ``load_safely`` reads nothing else.
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
            "_iteration_hooks",
        ]

    def save(self, path: Path, exclude: Iterable[str] | None = None, include: Iterable[str] | None = None) -> None:
        """
        Save the model, in SB3's zip format with a pickle-free form of every setting beside SB3's pickles.

        :param path: file name (``.zip`` is added if it has no suffix) or binary file
        :param exclude: attributes to leave out beside the default ones
        :param include: attributes to put in although they are left out by default
        :raises FloatingPointError: if a parameter is not finite: nothing is written then
        :raises OSError: if the file cannot be written; one that was there before is then as it was
        """
        for name, value in self.policy.named_parameters():
            if not th.isfinite(value).all():
                raise FloatingPointError(f"policy parameter {name!r} is not finite: the model was not saved")
        if self.env is not None:  # otherwise the model was loaded without one, and the statistics are those of its file
            self._normalizer_statistics = normalizer_statistics(self.get_vec_normalize_env())
        self._algorithm_name = type(self).__name__
        buffer = io.BytesIO()
        super().save(buffer, exclude, include)
        data, unknown = add_safe_form(buffer.getvalue(), self.__dict__)
        if unknown:
            listed = ", ".join(f"{name} ({kind})" for name, kind in unknown.items())
            warnings.warn(
                f"only pickle can save {listed}: load_safely() will refuse this file unless these are given to it as "
                "custom_objects",
                stacklevel=2,
            )
        if isinstance(path, io.IOBase):
            path.write(data)
            return
        target = _with_suffix(pathlib.Path(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, lambda file: file.write(data))

    @classmethod
    def load(
        cls: type[SelfPersistent],
        path: Path,
        env: GymEnv | None = None,
        device: th.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        trusted: bool = True,
        **kwargs: Any,
    ) -> SelfPersistent:
        """
        Load a model.

        With ``trusted=False`` nothing in the file is unpickled or imported, and whatever is not known to belong to a
        model is refused. By default, as in SB3, objects of the user's own classes are unpickled, which runs code from
        the file: only load files you trust that way.

        :param path: file name (``.zip`` may be left out) or binary file
        :param env: environment to go on with; may have another number of environments than the saved one
        :param device: device for the parameters
        :param custom_objects: replacements for saved settings
        :param print_system_info: print the saved and the current system
        :param force_reset: reset the environment before training
        :param trusted: unpickle what has no other form in the file. Where it is false, ``tensorboard_log`` is not taken
            from the file either
        :param kwargs: attributes to change
        :return: the model
        :raises FileNotFoundError: if there is no such file
        :raises ValueError: if the file is no whole zip archive, was written by another algorithm, does not fit the
            environment's spaces, or holds what ``trusted=False`` refuses
        """
        algorithms = [base.__name__ for base in cls.__mro__ if issubclass(base, PersistentAlgorithm)]
        file = read_model_file(path, algorithms, trusted)
        replaced = custom_objects or {}
        guard: AbstractContextManager[Any]
        if trusted:
            objects = {key: value for key, value in file.known().items() if is_object(file.settings[key])}
            source, guard = io.BytesIO(file.data), nullcontext()
        else:
            objects = cls._checked_settings(file, replaced, {**replaced, **kwargs})
            source, guard = file.without_pickles(cls._state_names()), AllocationLimit(len(file.data) + 2**20)
        try:
            with guard:
                model = super().load(
                    source, env, device, {**objects, **replaced}, print_system_info, force_reset, **kwargs
                )
        except Exception as error:
            if trusted or isinstance(error, ModelFileError):
                raise
            raise file.refuse(f"does not make a model: {error}") from error
        if env is not None:
            restore_normalizer(model.get_vec_normalize_env(), model._normalizer_statistics)
        return model

    @classmethod
    def load_safely(cls: type[SelfPersistent], path: Path, env: GymEnv | None = None, **kwargs: Any) -> SelfPersistent:
        """
        Load a model from a file that nobody vouches for: :meth:`load` with ``trusted=False``.

        :param path: file name (``.zip`` may be left out) or binary file
        :param env: environment to go on with
        :param kwargs: further arguments of :meth:`load`
        :return: the model
        :raises ValueError: as :meth:`load`
        """
        return cls.load(path, env, trusted=False, **kwargs)

    @classmethod
    def _state_names(cls) -> list[str]:
        return ["policy", "policy.optimizer"]

    @classmethod
    def _checked_settings(cls, file: ModelFile, replaced: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
        """Settings of a file that is not trusted, all of them known and of their types."""
        settings = {key: value for key, value in file.known().items() if key not in replaced}
        pickled = sorted(set(file.settings) - set(settings) - set(replaced))
        if pickled:
            listed = ", ".join(map(repr, pickled))
            raise file.refuse(
                f"has settings that only unpickling could load: {listed}. Give them as custom_objects, or load the "
                "file with trusted=True if you trust it"
            )
        new = cls("MlpPolicy", None, _init_setup_model=False)  # type: ignore[arg-type, call-arg]
        excluded = set(new._excluded_save_params()) | {"policy", "env"}
        try:
            check_settings(settings, new.__dict__, excluded, set(given))
            if "_normalizer_statistics" in settings:
                check_normalizer_statistics(settings["_normalizer_statistics"], settings["observation_space"])
        except ValueError as error:
            raise file.refuse(f"does not make a model: {error}") from error
        return {**settings, "tensorboard_log": None}

    def set_parameters(
        self, load_path_or_dict: str | TensorDict, exact_match: bool = True, device: th.device | str = "auto"
    ) -> None:
        """
        Load weights and the optimiser's state, as SB3 does, if they are finite and of the right shapes.

        :param load_path_or_dict: saved model, or state dictionaries by name
        :param exact_match: require every part and every weight
        :param device: device for the weights
        :raises ValueError: for a weight that is not finite, or an optimiser's state of another model
        """
        parts: Any = load_path_or_dict
        if not isinstance(parts, dict):
            parts = load_from_zip_file(parts, device=device, load_data=False)[1]
        for name, state in parts.items():
            if name in self._state_names():
                part = recursive_getattr(self, name)
                is_optimizer = isinstance(part, th.optim.Optimizer)
                (check_optimizer_state if is_optimizer else check_module_state)(name, state, part)
        super().set_parameters(parts, exact_match, device)


def _with_suffix(path: pathlib.Path) -> pathlib.Path:
    return path if path.suffix else path.with_suffix(".zip")


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
