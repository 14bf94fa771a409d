"""Which methods and families are compared, and with which settings."""

from typing import Any, NamedTuple

import yaml

from sb3_bomrl.algorithms.meta_algorithm import MetaAlgorithm
from sb3_bomrl.envs import ENV_IDS
from sb3_bomrl.policies import NormalizedFlattenExtractor
from sb3_bomrl.zoo import REGISTRY, config_path, with_schedules

KINDS = ("meta", "untrained", "multitask", "oracle", "rl2")


class Method(NamedTuple):
    """
    One line of a comparison.

    :param algorithm: name in :data:`sb3_bomrl.zoo.REGISTRY`, whose configuration file has the settings. What is no
        such algorithm takes from there what is common to all, and its adaptation at meta-test
    :param overrides: settings that differ from the file's
    :param kind: one of :data:`KINDS`
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

TRAINED = tuple(name for name, method in METHODS.items() if method.kind != "untrained")

FAMILIES: dict[str, int] = {
    "HalfCheetahVel": 20,
    "HalfCheetahDir": 20,
    "AntVel": 40,
    "AntDir": 40,
    "Navigation2D": 20,
}
"""Episodes per adaptation at meta-test."""

N_ENVS = 20
"""Environments of one policy for all tasks and of the oracle; their rollout has the steps of a phase of the others."""

N_TRIALS, EPISODES_PER_TRIAL = 40, 4
"""Of RL²: trials at a time, and as many episodes of each as there are scores at meta-test."""

RL2_SETTINGS = {"learning_rate": 3e-4, "n_epochs": 5}
"""Of RL² where :data:`TUNED` has no others, there with ``rl2_`` before their names."""

_LOCOMOTION = ("HalfCheetahVel", "HalfCheetahDir", "AntVel", "AntDir")
TUNED: dict[tuple[str, str], dict[str, Any]] = {
    **{("bomrl-alg3", family): {"reg_coef": 2.5} for family in _LOCOMOTION},
    ("bomrl-alg3", "Navigation2D"): {"learning_rate": "lin_0.0003"},
    **{("rl2", family): {"rl2_learning_rate": 1e-3} for family in _LOCOMOTION},
    ("rl2", "Navigation2D"): {"rl2_learning_rate": 3e-3},
}
"""Settings of a method on a family that no configuration file has, as it has one entry for all of BO-MRL."""


def env_id(family: str) -> str:
    """
    :param family: a key of :data:`FAMILIES`
    :return: its Gymnasium id
    :raises ValueError: for any other name
    """
    if family not in FAMILIES or f"bomrl/{family}-v0" not in ENV_IDS:
        raise ValueError(f"env must be one of {', '.join(FAMILIES)}, got {family!r}")
    return f"bomrl/{family}-v0"


def family_of(environment: str) -> str:
    """
    :param environment: from :func:`env_id`
    :return: name of the task family
    """
    return environment.removeprefix("bomrl/").removesuffix("-v0")


def settings_of(method: str, family: str) -> dict[str, Any]:
    """
    Settings of a method on a family: its configuration file's, the method's overrides.

    :param method: a key of :data:`METHODS`
    :param family: a key of :data:`FAMILIES`
    :return: keyword arguments of the algorithm, and ``n_envs``, as in the file (the policy's arguments as text)
    :raises ValueError: for an unknown method or family
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    chosen = METHODS[method]
    entries = yaml.safe_load(config_path(chosen.algorithm).read_text(encoding="utf-8"))
    adapts_as = "bomrl-alg1" if chosen.kind in ("untrained", "multitask") else method
    settings = {**entries[env_id(family)], **chosen.overrides, **TUNED.get((adapts_as, family), {})}
    settings.pop("n_timesteps")
    return settings


def plain_settings(method: str, settings: dict[str, Any]) -> dict[str, Any]:
    """
    Settings of sb3-contrib's algorithms, for the methods that are not meta-algorithms.

    Network, discount, data of an update and the outer step's KL are those of the others. What sb3-contrib alone has,
    has its defaults, but for larger minibatches. Only RL² was tuned.

    :param method: ``"multitask-trpo"``, ``"oracle"`` or ``"rl2"``
    :param settings: from :func:`settings_of`, changed or not
    :return: keyword arguments of the algorithm
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
    """
    :param settings: from :func:`settings_of`
    :return: the policy's keyword arguments
    """
    # as rl_zoo3 reads its own files: an expression over the names that they may use
    names = {"__builtins__": {}, "dict": dict, "NormalizedFlattenExtractor": NormalizedFlattenExtractor}
    return dict(eval(settings.get("policy_kwargs", "dict()"), names))


def make_model(method: str, env: Any, settings: dict[str, Any], seed: int) -> MetaAlgorithm:
    """
    :param method: a key of :data:`METHODS`
    :param env: VecEnv of ``n_envs`` environments
    :param settings: from :func:`settings_of`, changed or not
    :param seed: of everything
    :return: an untrained model on the CPU
    """
    algorithm = REGISTRY[METHODS[method].algorithm]
    return algorithm(env=env, seed=seed, device="cpu", **model_arguments(algorithm, settings))


def model_arguments(algorithm: type[MetaAlgorithm], settings: dict[str, Any]) -> dict[str, Any]:
    """
    :param algorithm: a class of meta-algorithms
    :param settings: from :func:`settings_of`, changed or not
    :return: its keyword arguments but for environment, seed and device
    """
    kwargs = {**settings, "policy_kwargs": policy_arguments(settings)}
    kwargs.pop("n_envs")
    return with_schedules(kwargs, ("learning_rate", *algorithm.step_sizes))
