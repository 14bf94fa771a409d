"""Humanoid as functions of arrays: a body that is to walk in a direction of the plane."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sb3_bomrl.envs.locomotion_family import Array, LocomotionFamily, State

_FORWARD_WEIGHT = 1.25
_HEALTHY_REWARD = 5.0
_CONTACT_COST = 5e-7
_MAX_CONTACT_COST = 10.0


@dataclass(frozen=True)
class HumanoidFamily(LocomotionFamily):
    r"""
    Gymnasium's Humanoid with a direction θ: reward :math:`1.25\,(\dot x\cos\theta + \dot y\sin\theta) + 5h - c\|a\|^2`.

    The velocity is that of the centre of mass. Contact forces are observed as they are; their cost is at most 10.

    :param masses: of the bodies
    """

    masses: tuple[float, ...] = ()

    @property
    def fields(self) -> tuple[str, ...]:
        """The base family's fields, centres, inertias and velocities of the bodies, and actuator forces."""
        return (*super().fields, "xipos", "cinert", "cvel", "qfrc_actuator")

    def observation(self, state: State) -> Array:
        """Return positions without x and y, velocities, the bodies' inertias and velocities, and the forces."""
        n = len(state["qpos"])
        of_bodies = ("cinert", "cvel") if self.contact_cost is None else ("cinert", "cvel", "cfrc_ext")
        bodies = {name: state[name][:, 1:].reshape(n, -1) for name in of_bodies}
        parts = [state["qpos"][:, self.n_skipped :], state["qvel"], bodies["cinert"], bodies["cvel"]]
        parts.append(state["qfrc_actuator"][:, 6:])
        return np.concatenate(parts if self.contact_cost is None else [*parts, bodies["cfrc_ext"]], axis=1)

    def position(self, state: State) -> Array:
        """Compute the centre of mass, (n, 2)."""
        masses = np.array(self.masses)
        moments: Array = np.einsum("b,nbj->nj", masses, state["xipos"])
        return (moments / masses.sum())[:, :2]

    def healthy(self, state: State, lift: Array) -> npt.NDArray[np.bool_]:
        """Return true where the height is strictly within its range."""
        assert self.healthy_z is not None
        height = state["qpos"][:, self.height] - lift
        return (self.healthy_z[0] < height) & (height < self.healthy_z[1])

    def _survive(self, healthy: npt.NDArray[np.bool_]) -> Array:
        return _HEALTHY_REWARD * healthy.astype(np.float64)

    def _forward(self, velocity: Array, tasks: Array) -> Array:
        return _FORWARD_WEIGHT * (velocity[:, 0] * np.cos(tasks) + velocity[:, 1] * np.sin(tasks))

    def _contact_cost(self, state: State) -> Array | None:
        if self.contact_cost is None:
            return None
        forces = state["cfrc_ext"]
        cost: Array = self.contact_cost * np.sum(np.square(forces.reshape(len(forces), -1)), axis=1)
        return np.minimum(cost, _MAX_CONTACT_COST)


def humanoid(masses: tuple[float, ...], contact_forces: bool = False) -> HumanoidFamily:
    """
    Make Humanoid-v5, healthy while the height is in (1, 2).

    :param masses: of the bodies
    :param contact_forces: whether contact forces are observed and cost reward
    """
    return HumanoidFamily(
        "direction",
        n_skipped=2,
        ctrl_cost=0.1,
        healthy_z=(1.0, 2.0),
        contact_cost=_CONTACT_COST if contact_forces else None,
        velocity_noise="uniform",
        reset_noise=1e-2,
        masses=masses,
    )
