"""Saving and loading models: atomic files, clear refusals, and everything that continuing a run needs."""

import io
import pathlib
import warnings
import zipfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch as th
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.save_util import load_from_zip_file, recursive_getattr
from stable_baselines3.common.type_aliases import GymEnv, TensorDict

from sb3_bomrl.checks import short, shortened
from sb3_bomrl.saving.checks import check_normalizer_statistics, check_settings
from sb3_bomrl.saving.files import is_stream, make_folder, write_atomically
from sb3_bomrl.saving.model_file import (
    ModelFile,
    ModelFileError,
    Path,
    add_safe_form,
    is_object,
    read_bytes,
    read_model_file,
)
from sb3_bomrl.saving.normalizer import normalizer_statistics, restore_normalizer
from sb3_bomrl.saving.old_files import brought_up_to_date
from sb3_bomrl.saving.weights import WeightLimit, check_module_state, check_optimizer_state

Model = TypeVar("Model", bound=OnPolicyAlgorithm)

STATE_NAMES = ("policy", "policy.optimizer")
"""The parts of a model that are saved as weights."""


def save_model(model: Any, path: Path, save: Callable[[io.BytesIO], None]) -> None:
    """
    Save a model in SB3's zip format, with a pickle-free form of every setting beside SB3's pickles.

    :param model: the model
    :param path: file name (``.zip`` is added if it has no suffix) or binary file
    :param save: SB3's ``save`` of this model
    :raises FloatingPointError: if a parameter is not finite: nothing is written then
    :raises OSError: if the file cannot be written; one that was there before is then as it was
    """
    for name, value in model.policy.named_parameters():
        if not th.isfinite(value).all():
            raise FloatingPointError(f"policy parameter {name!r} is not finite: the model was not saved")
    if model.env is not None:  # otherwise the model was loaded without one, and the statistics are those of its file
        model._normalizer_statistics = normalizer_statistics(model.get_vec_normalize_env())
    model._algorithm_name = type(model).__name__
    buffer = io.BytesIO()
    save(buffer)
    data, unknown = add_safe_form(buffer.getvalue(), model.__dict__)
    if unknown:
        listed = ", ".join(f"{name} ({kind})" for name, kind in unknown.items())
        warnings.warn(
            f"only pickle can save {listed}: load_safely() will refuse this file unless these are given to it as "
            "custom_objects",
            stacklevel=3,
        )
    if isinstance(path, io.IOBase):
        path.write(data)
        return
    target = _with_suffix(pathlib.Path(path))
    make_folder(target.parent)
    write_atomically(target, lambda file: file.write(data))


def _with_suffix(path: pathlib.Path) -> pathlib.Path:
    written_through = is_stream(path) or (path.is_symlink() and not path.is_dir())
    return path if path.suffix or written_through else path.with_suffix(".zip")


def load_model(
    algorithm: type[Model],
    load: Callable[..., Model],
    path: Path,
    env: GymEnv | None,
    device: th.device | str,
    custom_objects: dict[str, Any] | None,
    print_system_info: bool,
    force_reset: bool,
    trusted: bool,
    changes: Mapping[str, Any],
) -> Model:
    """
    Load a model that :func:`save_model` wrote.

    :param algorithm: the model's class
    :param load: SB3's ``load`` of this class
    :param path: file name (``.zip`` may be left out) or binary file
    :param env: environment to go on with; may have another number of environments than the saved one
    :param device: device for the parameters
    :param custom_objects: replacements for saved settings
    :param print_system_info: print the saved and the current system
    :param force_reset: reset the environment before training
    :param trusted: unpickle what has no other form in the file
    :param changes: attributes to change
    :return: the model
    :raises FileNotFoundError: if there is no such file
    :raises ValueError: if the file is no whole zip archive, was written by another algorithm, does not fit the
        environment's spaces, or holds what ``trusted=False`` refuses
    """
    writers = [base.__name__ for base in algorithm.__mro__ if issubclass(base, OnPolicyAlgorithm)]
    file = brought_up_to_date(read_model_file(path, writers, trusted), writers)
    replaced = custom_objects or {}
    if trusted:
        objects = {key: value for key, value in file.known().items() if is_object(file.settings[key])}
        source = io.BytesIO(file.data)
    else:
        objects = _checked_settings(algorithm, file, replaced, {**replaced, **changes})
        source = file.without_pickles(STATE_NAMES)
    try:
        guard: AbstractContextManager[Any] = nullcontext() if trusted else WeightLimit(_policy_weights(source))
        with guard:
            model = load(source, env, device, {**objects, **replaced}, print_system_info, force_reset, **changes)
    except Exception as error:
        if trusted or isinstance(error, ModelFileError):
            raise
        raise file.refuse(f"does not make a model: {error}") from error
    if env is not None:
        restore_normalizer(model.get_vec_normalize_env(), model._normalizer_statistics)  # type: ignore[attr-defined]
    return model


def _policy_weights(source: io.BytesIO) -> Mapping[str, Any]:
    with zipfile.ZipFile(source) as archive:
        return th.load(io.BytesIO(archive.read("policy.pth")), map_location="cpu", weights_only=True)


def _checked_settings(
    algorithm: type[OnPolicyAlgorithm], file: ModelFile, replaced: dict[str, Any], given: dict[str, Any]
) -> dict[str, Any]:
    """Settings of a file that is not trusted, all of them known and of their types."""
    settings = {key: value for key, value in file.known().items() if key not in replaced}
    pickled = sorted(set(file.settings) - set(settings) - set(replaced))
    if pickled:
        listed = shortened(", ".join(map(short, pickled[:100])), 300)
        raise file.refuse(
            f"has settings that only unpickling could load: {listed}. Give them as custom_objects, or load the "
            "file with trusted=True if you trust it"
        )
    new: Any = algorithm("MlpPolicy", None, _init_setup_model=False)  # type: ignore[arg-type, call-arg]
    excluded = set(new._excluded_save_params()) | {"policy", "env"}
    try:
        check_settings(settings, new.__dict__, excluded, set(given), ("learning_rate", *new.scheduled))
        if "_normalizer_statistics" in settings:
            check_normalizer_statistics(settings["_normalizer_statistics"], settings["observation_space"])
    except ValueError as error:
        raise file.refuse(f"does not make a model: {error}") from error
    return {**settings, "tensorboard_log": None}


def checked_parameters(
    model: Any, load_path_or_dict: Path | TensorDict, exact_match: bool, device: th.device | str
) -> Any:
    """
    Read weights and the optimiser's state, if they are finite and of the model's shapes.

    :param model: the model they are for
    :param load_path_or_dict: saved model, or state dictionaries by name
    :param exact_match: require every weight
    :param device: device for the weights
    :return: state dictionaries by name
    :raises ValueError: for a weight that is not finite, or an optimiser's state of another model
    """
    parts: Any = load_path_or_dict
    if not isinstance(parts, dict):
        parts = load_from_zip_file(io.BytesIO(read_bytes(parts)), device=device, load_data=False)[1]
    for name, state in parts.items():
        if name not in STATE_NAMES:
            continue
        part = recursive_getattr(model, name)
        if isinstance(part, th.optim.Optimizer):
            check_optimizer_state(name, state, part)
        elif not isinstance(state, Mapping) or (exact_match and state.keys() != part.state_dict().keys()):
            break  # torch refuses it, with an error that names what is missing
        else:
            check_module_state(name, state, part)
    return parts
