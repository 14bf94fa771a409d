"""Which methods and families are compared, and with which settings."""

from typing import Any, NamedTuple

import yaml

from sb3_bomrl.envs import ENV_IDS
from sb3_bomrl.policies import NormalizedFlattenExtractor
from sb3_bomrl.zoo import REGISTRY, config_path, with_schedules


class Method(NamedTuple):
    """
    One line of a comparison.

    :param algorithm: name in :data:`sb3_bomrl.zoo.REGISTRY`, whose configuration file has the settings
    :param overrides: settings that differ from the file's
    :param is_trained: ``False`` for a policy that is adapted from where it was initialised
    """

    algorithm: str
    overrides: dict[str, Any]
    is_trained: bool = True


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
    "random-init": Method("bomrl", {"distance": "kl_meta_task"}, is_trained=False),
}

FAMILIES: dict[str, int] = {
    "HalfCheetahVel": 20,
    "HalfCheetahDir": 20,
    "AntVel": 40,
    "AntDir": 40,
    "Navigation2D": 20,
}
"""Episodes per adaptation at meta-test."""


def env_id(family: str) -> str:
    """
    :param family: a key of :data:`FAMILIES`
    :return: its Gymnasium id
    :raises ValueError: for any other name
    """
    if family not in FAMILIES or f"bomrl/{family}-v0" not in ENV_IDS:
        raise ValueError(f"env must be one of {', '.join(FAMILIES)}, got {family!r}")
    return f"bomrl/{family}-v0"


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
    settings = {**entries[env_id(family)], **chosen.overrides}
    settings.pop("n_timesteps")
    return settings


def make_model(method: str, env: Any, settings: dict[str, Any], seed: int) -> Any:
    """
    :param method: a key of :data:`METHODS`
    :param env: VecEnv of ``n_envs`` environments
    :param settings: from :func:`settings_of`, changed or not
    :param seed: of everything
    :return: an untrained model on the CPU
    """
    kwargs = dict(settings)
    kwargs.pop("n_envs")
    policy, text = kwargs.pop("policy"), kwargs.pop("policy_kwargs", "dict()")
    # as rl_zoo3 reads its own files: an expression over the names that they may use
    names = {"__builtins__": {}, "dict": dict, "NormalizedFlattenExtractor": NormalizedFlattenExtractor}
    policy_kwargs = eval(text, names)
    algorithm = REGISTRY[METHODS[method].algorithm]
    kwargs = with_schedules(kwargs, ("learning_rate", *algorithm.step_sizes))
    return algorithm(policy, env, policy_kwargs=policy_kwargs, seed=seed, device="cpu", **kwargs)
