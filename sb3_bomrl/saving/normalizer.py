"""The statistics of a ``VecNormalize`` in model files."""

import warnings
from typing import Any

import numpy as np
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize

_RMS_FIELDS = ("mean", "var", "count")


def normalizer_statistics(vec_normalize: VecNormalize | None) -> dict[str, Any] | None:
    """
    Return the running statistics of a ``VecNormalize`` as plain numbers.

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


def normalizes_observations(statistics: dict[str, Any] | None) -> bool:
    """
    Return true for the statistics of a ``VecNormalize`` of observations, false where it has those of rewards alone.

    :param statistics: from :func:`normalizer_statistics`
    :return: true if observations are normalised
    """
    return statistics is not None and bool(statistics["obs"])


def _numbers(rms: RunningMeanStd) -> dict[str, Any]:
    return {field: np.asarray(getattr(rms, field)).tolist() for field in _RMS_FIELDS}


def restore_normalizer(vec_normalize: VecNormalize | None, statistics: dict[str, Any] | None) -> None:
    """
    Put saved statistics into a ``VecNormalize``, or warn if only one of the two has those of observations.

    :param vec_normalize: the wrapper, or ``None``
    :param statistics: from :func:`normalizer_statistics`
    :raises ValueError: if their shapes differ
    """
    normalizes = vec_normalize is not None and vec_normalize.norm_obs
    if normalizes != normalizes_observations(statistics):
        saved, given = ("with" if x else "without" for x in (not normalizes, normalizes))
        warnings.warn(
            f"env was given {given} VecNormalize of the observations, but the model was saved {saved} it: the policy "
            "may see other observations than it learned from",
            stacklevel=3,
        )
    if vec_normalize is None or statistics is None:
        return
    pairs = [(vec_normalize.ret_rms, statistics["returns"])]
    if normalizes:
        parts = vec_normalize.obs_rms if isinstance(vec_normalize.obs_rms, dict) else {"": vec_normalize.obs_rms}
        pairs += [(parts[key], value) for key, value in statistics["obs"].items()]
    for rms, numbers in pairs:
        for field in _RMS_FIELDS:
            current = np.asarray(getattr(rms, field))
            value = np.asarray(numbers[field], dtype=np.float64)
            if value.shape != current.shape:
                raise ValueError(
                    f"env must normalise observations of shape {value.shape}, as the model's did, got {current.shape}: "
                    "put VecNormalize below the same wrappers"
                )
            setattr(rms, field, float(value) if current.ndim == 0 and field == "count" else value)
