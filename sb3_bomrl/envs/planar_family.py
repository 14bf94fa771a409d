"""Walker2d and Hopper as functions of arrays: bodies in a plane whose *model* is the task."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sb3_bomrl.envs.locomotion_family import Array, LocomotionFamily, State

_MAX_VELOCITY = 10.0
"""Velocities are clipped to this in the observation."""


@dataclass(frozen=True)
class PlanarFamily(LocomotionFamily):
    r"""
    Gymnasium's Walker2d and Hopper: reward :math:`\dot x + h - c\,\|a\|^2`, ends when unhealthy.

    Unlike Ant's, the ranges exclude their ends, and observed velocities are clipped.

    :param healthy_angle: range of the torso's angle ``qpos[2]``
    :param healthy_state: range of all coordinates but the first two, ``None`` for any
    """

    healthy_angle: tuple[float, float] = (-np.inf, np.inf)
    healthy_state: tuple[float, float] | None = None

    def observation(self, state: State) -> Array:
        """Return positions without the first, and clipped velocities."""
        velocity = np.clip(state["qvel"], -_MAX_VELOCITY, _MAX_VELOCITY)
        return np.concatenate((state["qpos"][:, self.n_skipped :], velocity), axis=1)

    def healthy(self, state: State, lift: Array) -> npt.NDArray[np.bool_]:
        """Return true where height, angle and, for Hopper, every coordinate are strictly within their ranges."""
        assert self.healthy_z is not None
        qpos = state["qpos"]
        healthy = _within(qpos[:, self.height] - lift, self.healthy_z) & _within(qpos[:, 2], self.healthy_angle)
        if self.healthy_state is not None:
            healthy &= _within(qpos[:, 2:], self.healthy_state).all(axis=1)
            healthy &= _within(state["qvel"], self.healthy_state).all(axis=1)
        return healthy


def _within(values: Array, limits: tuple[float, float]) -> npt.NDArray[np.bool_]:
    return (limits[0] < values) & (values < limits[1])


def walker2d() -> PlanarFamily:
    """Make Walker2d-v5, healthy while the height is in (0.8, 2) and the angle in (−1, 1)."""
    return PlanarFamily(
        "forward",
        n_skipped=1,
        ctrl_cost=1e-3,
        height=1,
        healthy_z=(0.8, 2.0),
        healthy_angle=(-1.0, 1.0),
        velocity_noise="uniform",
        frame_skip=4,
        reset_noise=5e-3,
    )


def hopper() -> PlanarFamily:
    """Make Hopper-v5, healthy while the height is above 0.7, the angle in (−0.2, 0.2), all else in (−100, 100)."""
    return PlanarFamily(
        "forward",
        n_skipped=1,
        ctrl_cost=1e-3,
        height=1,
        healthy_z=(0.7, np.inf),
        healthy_angle=(-0.2, 0.2),
        healthy_state=(-100.0, 100.0),
        velocity_noise="uniform",
        frame_skip=4,
        reset_noise=5e-3,
    )
