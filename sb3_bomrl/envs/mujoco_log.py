"""Keep MuJoCo's warnings off the console and out of ``MUJOCO_LOG.TXT`` in the user's working directory."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import mujoco

_logger = logging.getLogger("sb3_bomrl.mujoco")


@contextmanager
def mujoco_warnings_to_log() -> Iterator[None]:
    """
    Send MuJoCo's warnings to the Python logger ``sb3_bomrl.mujoco`` at level DEBUG.

    A warning handler that the user installed is left in place.
    """
    if mujoco.get_mju_user_warning() is not None:
        yield
        return
    mujoco.set_mju_user_warning(_logger.debug)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(None)
