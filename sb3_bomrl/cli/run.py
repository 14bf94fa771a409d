"""The settings of a run: from the command line, and in its folder."""

import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sb3_bomrl.algorithms.argument_types import annotations_of, check_types, fits, in_words
from sb3_bomrl.algorithms.meta_algorithm import MetaAlgorithm
from sb3_bomrl.algorithms.registry import REGISTRY
from sb3_bomrl.checks import check_count, check_positive, check_range, short, shortened
from sb3_bomrl.saving.files import read_regular
from sb3_bomrl.vec_env.make import default_envs_per_task
from sb3_bomrl.zoo.registry import EXPRESSIONS, constructor_arguments

RUN_FILE = "run.json"
"""Name of the file in a run's folder that holds its :class:`Run`."""

_SWITCHES = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_RESERVED = {"self", "env", "seed", "verbose", "_init_setup_model"}


class Run(NamedTuple):
    """
    The settings of a run.

    :param env: environment id
    :param algo: name of the algorithm
    :param n_envs: number of environments
    :param params: arguments of the algorithm, as a configuration file holds them
    :param seed: of everything
    :param timesteps: environment steps
    """

    env: str
    algo: str
    n_envs: int
    params: dict[str, Any]
    seed: int
    timesteps: int


def find_algorithm(name: str) -> type[MetaAlgorithm]:
    """
    Return an algorithm's class.

    :param name: its name
    :return: the class
    :raises ValueError: if there is none of that name
    """
    if name not in REGISTRY:
        raise ValueError(f"algo must be one of {', '.join(REGISTRY)}, got {name!r}")
    return REGISTRY[name]


def parse_params(params: Sequence[str], cls: type[MetaAlgorithm]) -> dict[str, Any]:
    """
    Read ``name=value``.

    :param params: from the command line
    :param cls: the algorithm they are for
    :return: arguments, as a configuration file holds them
    :raises ValueError: if one is not of that form, no setting of the algorithm, or not of its type
    """
    known, annotations, found = _settings_of(cls), annotations_of(cls), {}
    for param in params:
        name, equals, text = param.partition("=")
        if not equals or name not in known:
            raise ValueError(f"-P must be NAME=VALUE with a setting of {cls.__name__}, got {param!r}: {sorted(known)}")
        found[name] = _parsed(name, text.strip(), annotations[name])
    check_types(annotations, constructor_arguments(cls, found))
    return found


def _settings_of(cls: type[MetaAlgorithm]) -> set[str]:
    return set(inspect.signature(cls.__init__).parameters) - _RESERVED


def _parsed(name: str, text: str, annotation: Any) -> Any:
    """The value of one setting; what JSON cannot hold stays text, see ``constructor_arguments``."""
    if annotation is bool:
        if text.lower() not in _SWITCHES:
            raise ValueError(f"{name} must be {in_words(bool)}, got {text!r}")
        return _SWITCHES[text.lower()]
    if text == "None" and fits(None, annotation):
        return None
    if name in EXPRESSIONS or fits("", annotation):
        return text.strip("\"'")
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def new_run(env: str, algo: str, params: Sequence[str], seed: int, timesteps: int) -> Run:
    """
    Put the settings of a new run together.

    :param env: environment id
    :param algo: name of the algorithm
    :param params: ``name=value``
    :param seed: of everything
    :param timesteps: environment steps
    :return: the run
    :raises ValueError: if there is no such algorithm, or it has no such setting
    """
    cls = find_algorithm(algo)
    settings = parse_params(params, cls)
    defaults = inspect.signature(cls.__init__).parameters
    n_per_task = settings.pop("n_envs_per_task", None)
    n_per_task = default_envs_per_task(env) if n_per_task is None else n_per_task
    n_tasks = settings.get("meta_batch_size", defaults["meta_batch_size"].default)
    for name, count in (("n_envs_per_task", n_per_task), ("meta_batch_size", n_tasks)):
        check_count(name, count)
    return Run(env, algo, n_tasks * n_per_task, settings, seed, timesteps)


def read_run(folder: Path) -> Run | None:
    """
    Read the settings of a run.

    :param folder: of the run
    :return: the settings, ``None`` if the folder holds no run
    :raises ValueError: if its file is not one of `bomrl train`, or no regular file
    """
    file = folder / RUN_FILE
    if not file.exists():
        return None
    text = read_regular(file)
    try:
        found = json.loads(text)
        run = Run(**found)
        _check_run(run)
    except (ValueError, TypeError, RecursionError) as error:
        reason = shortened(str(error), 200)
        raise ValueError(f"{file} must hold the settings of a run of `bomrl train`: {reason}") from None
    return run


def _check_run(run: Run) -> None:
    check_types(Run.__annotations__, run._asdict())
    cls = find_algorithm(run.algo)
    check_count("n_envs", run.n_envs)
    check_positive("timesteps", run.timesteps, integer=True)
    check_range("seed", run.seed, 0, 2**32 - 1)
    unknown = set(run.params) - _settings_of(cls) - set(cls.renamed) | {"n_envs_per_task"} & set(run.params)
    if unknown:
        raise ValueError(f"params must be settings of {cls.__name__}, got {short(sorted(unknown))}")
    check_types(annotations_of(cls), constructor_arguments(cls, run.params))


def interrupted_run(folder: Path, env: str, algo: str, params: Sequence[str]) -> Run:
    """
    Read the settings of an interrupted run.

    :param folder: of the run
    :param env: its environment
    :param algo: its algorithm
    :param params: must be empty
    :return: the run
    :raises ValueError: if the folder holds no run, or one of another environment or algorithm, or settings are given
    """
    run, file = read_run(folder), folder / RUN_FILE
    if run is None:
        raise ValueError(f"--resume needs a run to go on with, but there is no {file}")
    if params or (run.env, run.algo) != (env, algo):
        raise ValueError(
            f"--resume goes on with {run.algo} on {run.env} and the settings {run.params} of {file}: "
            "leave -P out, and give that env and algo"
        )
    return run
