"""
rl_zoo3 with the algorithms and environments of this package.

    python -m sb3_bomrl.zoo train --algo bomrl --env bomrl/HalfCheetahVel-v0

runs rl_zoo3's own scripts after :func:`register` has put the algorithms into its tables.
"""

from sb3_bomrl.algorithms.registry import REGISTRY
from sb3_bomrl.zoo.registration import register
from sb3_bomrl.zoo.registry import config_path, constructor_arguments, with_schedules

__all__ = ["REGISTRY", "config_path", "constructor_arguments", "register", "with_schedules"]
