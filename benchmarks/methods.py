"""Which methods are compared, and with which settings."""

from typing import Any, NamedTuple

import yaml

from sb3_bomrl.algorithms.meta_algorithm import MetaAlgorithm
from sb3_bomrl.zoo import REGISTRY, config_path, constructor_arguments
from sb3_bomrl.zoo.expressions import read_expression


class Method(NamedTuple):
    """
    A method of the comparison.

    :param algorithm: name in :data:`sb3_bomrl.zoo.REGISTRY`, whose configuration file has the settings; methods that
        are no meta-algorithm take from it what is common to all, and their adaptation at meta-test
    :param overrides: settings other than the file's
    :param kind: ``"meta"``, ``"untrained"``, ``"multitask"``, ``"oracle"`` or ``"rl2"``
    """

    algorithm: str
    overrides: dict[str, Any]
    kind: str = "meta"


METHODS: dict[str, Method] = {
    # λ has the scale of the distance: a KL in nats, or a squared distance of parameters
    "bomrl-alg1": Method("bomrl", {"distance": "kl_meta_task"}),
    "bomrl-alg2": Method("bomrl", {"distance": "kl_task_meta"}),
    "bomrl-alg3": Method("bomrl", {"distance": "parameter"}),
    "maml": Method("maml", {}),
    "fomaml": Method("fomaml", {}),
    "emaml": Method("emaml", {}),
    "promp": Method("promp", {}),
    "reptile": Method("reptile", {}),
    # adapted as bomrl-alg1, but not trained
    "random-init": Method("bomrl", {"distance": "kl_meta_task"}, "untrained"),
    # sb3-contrib's TRPO, a new task every episode; adapted at meta-test as bomrl-alg1
    "multitask-trpo": Method("bomrl", {"distance": "kl_meta_task"}, "multitask"),
    # the same with the task in the observation; never adapted
    "oracle": Method("bomrl", {"distance": "kl_meta_task"}, "oracle"),
    # adapts by playing: k adaptations are k episodes of the task before the one that is scored
    "rl2": Method("bomrl", {}, "rl2"),
}

OURS = ("bomrl-alg1", "bomrl-alg2", "bomrl-alg3")

N_ENVS = 20
"""Environments of one policy for all tasks and of the oracle; their rollout has the steps of a phase of the others."""

N_TRIALS, EPISODES_PER_TRIAL = 40, 4
"""Of RL²: trials at a time, and episodes of each."""

RL2_SETTINGS = {"learning_rate": 3e-4, "n_epochs": 5}
"""Of RL², unless settings have others, with ``rl2_`` before their names."""

_LOCOMOTION = tuple(f"bomrl/{family}-v0" for family in ("HalfCheetahVel", "HalfCheetahDir", "AntVel", "AntDir"))
TUNED: dict[tuple[str, str], dict[str, Any]] = {
    **{("bomrl-alg3", env): {"reg_coef": 2.5} for env in _LOCOMOTION},
    ("bomrl-alg3", "bomrl/Navigation2D-v0"): {"learning_rate": "lin_0.0003"},
    **{("rl2", env): {"rl2_learning_rate": 1e-3} for env in _LOCOMOTION},
    ("rl2", "bomrl/Navigation2D-v0"): {"rl2_learning_rate": 3e-3},
}
"""Settings of a method on a family that no configuration file has, as it has one entry for all of BO-MRL."""


def short_name(env_id: str) -> str:
    """Return a family's name without namespace and version."""
    return env_id.removeprefix("bomrl/").removesuffix("-v0")


def settings_of(method: str, env_id: str, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the settings of a method on a family: the configuration file's, the method's own, the overrides."""
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    chosen = METHODS[method]
    entries = yaml.safe_load(config_path(chosen.algorithm).read_text(encoding="utf-8"))
    if env_id not in entries:
        raise ValueError(f"env must be one of {', '.join(entries)}, got {env_id!r}")
    adapts_as = "bomrl-alg1" if chosen.kind in ("untrained", "multitask") else method
    settings = {**entries[env_id], **chosen.overrides, **TUNED.get((adapts_as, env_id), {}), **(overrides or {})}
    settings.pop("n_timesteps")
    if "n_envs_per_task" in settings:
        settings["n_envs"] = settings.pop("n_envs_per_task") * settings["meta_batch_size"]
    return settings


def plain_settings(method: str, settings: dict[str, Any]) -> dict[str, Any]:
    """
    Return the settings of sb3-contrib's algorithms, for the methods that are not meta-algorithms.

    Network, discount, data of an update and the outer step's KL are those of the others. What sb3-contrib alone has,
    has its defaults, but for larger minibatches.
    """
    # the defaults of the meta-algorithms where their file names none
    common = {name: settings.get(name, default) for name, default in (("gamma", 0.99), ("gae_lambda", 0.97))}
    policy_kwargs = policy_arguments(settings)
    if METHODS[method].kind == "rl2":
        n_steps = EPISODES_PER_TRIAL * settings["n_steps"]  # gradients flow through whole trials
        # time goes step by step through a minibatch, whose trials cost almost nothing: hence few, large ones
        policy_kwargs |= {"lstm_hidden_size": 128}
        tuned = {name: settings.get(f"rl2_{name}", default) for name, default in RL2_SETTINGS.items()}
        batch_size = n_steps * N_TRIALS // 2
        return {**common, **tuned, "n_steps": n_steps, "batch_size": batch_size, "policy_kwargs": policy_kwargs}
    n_steps = settings["n_steps"] * settings["n_envs"] // N_ENVS
    target_kl = settings.get("max_kl", 0.02)
    return {**common, "n_steps": n_steps, "batch_size": n_steps, "target_kl": target_kl, "policy_kwargs": policy_kwargs}


def policy_arguments(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the policy's keyword arguments."""
    return dict(read_expression("policy_kwargs", settings.get("policy_kwargs", "dict()")))


def make_model(method: str, env: Any, settings: dict[str, Any], seed: int) -> MetaAlgorithm:
    """Make an untrained model on the CPU."""
    algorithm = REGISTRY[METHODS[method].algorithm]
    kwargs = {name: value for name, value in settings.items() if name != "n_envs"}
    return algorithm(env=env, seed=seed, device="cpu", **constructor_arguments(algorithm, kwargs))
