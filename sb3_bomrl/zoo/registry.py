"""The configuration files of the algorithms, and what those may hold."""

from pathlib import Path
from typing import Any

from stable_baselines3.common.utils import LinearSchedule

from sb3_bomrl.algorithms.meta_algorithm import MetaAlgorithm
from sb3_bomrl.checks import check_positive
from sb3_bomrl.zoo.expressions import read_expression


def config_path(algo: str) -> Path:
    """
    Return the configuration file of an algorithm, in the installed package or the repository.

    :param algo: a name in :data:`~sb3_bomrl.algorithms.registry.REGISTRY`
    :return: the file
    :raises FileNotFoundError: if there is none
    """
    package = Path(__file__).parents[1]
    for folder in (package / "zoo_configs", package.parent / "zoo_configs"):
        if (folder / f"{algo}.yml").is_file():
            return folder / f"{algo}.yml"
    raise FileNotFoundError(f"there is no zoo_configs/{algo}.yml: name one with --conf-file")


EXPRESSIONS = ("policy_kwargs", "rollout_buffer_class", "rollout_buffer_kwargs")
"""Arguments that a configuration file holds as text of Python."""


def constructor_arguments(algorithm: type[MetaAlgorithm], settings: dict[str, Any]) -> dict[str, Any]:
    """
    Turn settings of a configuration file or the command line into arguments of an algorithm.

    :param algorithm: its class
    :param settings: by name; step sizes may be ``lin_<start>``, and ``policy_kwargs`` an expression, see
        :func:`~sb3_bomrl.zoo.expressions.read_expression`
    :return: keyword arguments
    :raises ValueError: for any other text there
    """
    found = with_schedules(settings, ("learning_rate", *algorithm.scheduled))
    read = {name: found[name] for name in EXPRESSIONS if isinstance(found.get(name), str)}
    return {**found, **{name: read_expression(name, text) for name, text in read.items()}}


def with_schedules(hyperparams: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """
    Turn ``lin_<start>`` into a schedule that falls from there to 0.

    :param hyperparams: as read from a configuration file
    :param names: those that may be schedules
    :return: the same with schedules
    :raises ValueError: for any other text
    """
    return {key: _schedule(key, value) if key in names else value for key, value in hyperparams.items()}


def _schedule(name: str, value: Any) -> Any:
    if not isinstance(value, str) or value == "auto":
        return value
    start = value[4:] if value.startswith("lin_") else ""
    try:
        check_positive(name, float(start))
        return LinearSchedule(float(start), 0.0, 1.0)
    except ValueError:
        raise ValueError(f"{name} must be a number or 'lin_<start>', got {value!r}") from None
