"""Pretrained models, one per method and task family; README.md beside them says how they were made."""

from pathlib import Path

from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from sb3_bomrl.algorithms.registry import REGISTRY

_FOLDER = Path(__file__).parent


def pretrained_models() -> list[tuple[str, str]]:
    """
    List the models that :func:`pretrained` loads.

    :return: (family, method) of each, in alphabetical order
    """
    names = sorted(path.stem for path in _FOLDER.glob("*.zip"))
    return [(family, method) for family, _, method in (name.partition("_") for name in names)]


def pretrained(family: str, method: str = "bomrl") -> OnPolicyAlgorithm:
    """
    Load a pretrained model, on the CPU and without an environment::

        model = sb3_bomrl.pretrained("HalfCheetahVel", "bomrl")
        adapted = model.adapt(env, n_episodes=20)

    All are read by ``load_safely``, but for ``"rl2"``: that needs sb3-contrib, and its file is unpickled, which is safe
    only as long as the package's own files are untouched.

    :param family: name of a task family, such as ``"HalfCheetahVel"``
    :param method: name of an algorithm in lower case: ``"bomrl"``, ``"maml"``, …
    :return: the model
    :raises ValueError: if there is no such model; the message lists those that there are
    """
    known = pretrained_models()
    if (family, method) not in known:
        pairs = ", ".join(f"{one}/{other}" for one, other in known)
        raise ValueError(f"family and method must be one of {pairs}, got {family!r} and {method!r}")
    path = _FOLDER / f"{family}_{method}.zip"
    if method == "rl2":
        from sb3_bomrl.rl2.rl2 import RL2  # needs sb3-contrib

        return RL2.load(path, device="cpu")
    return REGISTRY[method].load_safely(path, device="cpu")
