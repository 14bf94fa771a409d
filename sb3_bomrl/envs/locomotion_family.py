"""
Locomotion families as functions of arrays with a leading batch axis.

Written once: the single Gymnasium environments call them with a batch of one, the batched physics with all of its
simulations, so that the two cannot drift apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
State = Mapping[str, Array]
"""Fields of ``mjData`` by name, each of shape (n, \\*shape)."""

ANT_CONTACT_COST = 5e-4


class Rewards(NamedTuple):
    """The reward of one step and its parts, each of shape (n,); ``contact`` is ``None`` without a contact cost."""

    total: Array
    forward: Array
    ctrl: Array
    survive: Array
    contact: Array | None = None

    def parts(self) -> dict[str, Array]:
        """Return the parts by their names in ``info``."""
        parts = {"reward_forward": self.forward, "reward_ctrl": self.ctrl, "reward_survive": self.survive}
        return parts if self.contact is None else {**parts, "reward_contact": self.contact}


@dataclass(frozen=True)
class LocomotionFamily:
    r"""
    Initial state, observation, reward and termination of a locomotion family.

    The reward of a step is :math:`f + b + h - c\,\|a\|^2` with
    :math:`f = -|\dot x - v|` (``objective="velocity"``), :math:`f = d\,\dot x` (``"direction"``) or
    :math:`f = \dot x` (``"forward"``, where the task is the model), a bonus :math:`b`, and :math:`h = 1` while a body
    that can fall is healthy. Contact forces, where they are observed, cost reward too.

    :param objective: the kind of task
    :param n_skipped: leading coordinates of ``qpos`` that the observation leaves out
    :param ctrl_cost: c
    :param bonus: b
    :param root_body: body whose ``xpos`` gives the velocity, ``None`` for ``qpos[0]``; ``xpos`` lags by one substep,
        as it does in Gymnasium's Ant
    :param height: the coordinate of ``qpos`` that is the body's height
    :param healthy_z: range of the height outside which the episode ends, ``None`` for never
    :param contact_cost: weight of the squared contact forces, ``None`` for neither cost nor observation
    :param velocity_noise: distribution of the initial velocities
    :param frame_skip: physics steps per environment step
    :param reset_noise: scale of the initial noise
    """

    objective: Literal["velocity", "direction", "forward"]
    n_skipped: int
    ctrl_cost: float
    bonus: float = 0.0
    root_body: int | None = None
    height: int = 2
    healthy_z: tuple[float, float] | None = None
    contact_cost: float | None = None
    velocity_noise: Literal["normal", "uniform"] = "normal"
    frame_skip: int = 5
    reset_noise: float = 0.1

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of ``mjData`` that the functions below read."""
        body = () if self.root_body is None else ("xpos",)
        return ("qpos", "qvel", *body, *(("cfrc_ext",) if self.contact_cost is not None else ()))

    def initial_state(
        self, rngs: Sequence[np.random.Generator], qpos: Array, qvel: Array, lift: Array
    ) -> tuple[Array, Array]:
        """
        Draw initial states around the model's, one generator per environment, in Gymnasium's order of draws.

        :param rngs: n generators
        :param qpos: the model's initial positions, (nq,)
        :param qvel: the model's initial velocities, (nv,)
        :param lift: how much higher than that each body starts, (n,)
        :return: positions (n, nq) and velocities (n, nv)
        """
        start = np.repeat(qpos[None], len(rngs), axis=0)
        start[:, self.height] += lift
        position, velocity = self._noise(rngs, len(qpos), len(qvel))
        return start + position, qvel + velocity

    def _noise(self, rngs: Sequence[np.random.Generator], nq: int, nv: int) -> tuple[Array, Array]:
        """Uniform positions, and velocities of either kind."""
        position, velocity = np.empty((len(rngs), nq)), np.empty((len(rngs), nv))
        for rng, row, velocity_row in zip(rngs, position, velocity, strict=True):
            rng.random(out=row)
            if self.velocity_noise == "normal":
                rng.standard_normal(out=velocity_row)
            else:
                rng.random(out=velocity_row)
        if self.velocity_noise == "uniform":
            return self._uniform(position), self._uniform(velocity)
        return self._uniform(position), self.reset_noise * velocity

    def _uniform(self, draws: Array) -> Array:
        """Scale draws to ``[-reset_noise, reset_noise)`` as ``Generator.uniform`` does, for all rows at once."""
        return -self.reset_noise + 2.0 * self.reset_noise * draws

    def observation(self, state: State) -> Array:
        """
        Return the observations.

        :param state: the simulations
        :return: (n, n_observations), a copy
        """
        parts = [state["qpos"][:, self.n_skipped :], state["qvel"]]
        if self.contact_cost is not None:
            parts.append(_clipped_forces(state)[:, 6:])  # the world, body 0, is left out
        return np.concatenate(parts, axis=1)

    def position(self, state: State) -> Array:
        """
        Return the position of the point whose velocity is rewarded.

        :param state: the simulations
        :return: (n, 1) or (n, 2), a copy
        """
        if self.root_body is None:
            return state["qpos"][:, :1].copy()
        return state["xpos"][:, self.root_body, :2].copy()

    def healthy(self, state: State, lift: Array) -> npt.NDArray[np.bool_]:
        """
        Return true where the body has neither fallen nor jumped too high.

        :param state: the simulations
        :param lift: how much higher each body stands than the model's, (n,); the range of heights moves with it
        :return: (n,) bool
        """
        if self.healthy_z is None:
            return np.ones(len(state["qpos"]), dtype=bool)
        height, (low, high) = state["qpos"][:, self.height] - lift, self.healthy_z
        return (low <= height) & (height <= high)

    def reward(
        self, velocity: Array, state: State, actions: npt.NDArray, healthy: npt.NDArray[np.bool_], tasks: Array
    ) -> Rewards:
        """
        Compute the reward of one step.

        :param velocity: of :meth:`position`, (n, 1) or (n, 2)
        :param state: the simulations after the step
        :param actions: (n, nu), as given to ``step``
        :param healthy: (n,)
        :param tasks: (n,), goal velocities or directions; not read if the objective is ``"forward"``
        :return: total and parts, (n,) each
        """
        forward = self._forward(velocity, tasks)
        squares = np.square(np.ascontiguousarray(actions, dtype=np.float64))
        ctrl = self.ctrl_cost * np.sum(squares, axis=1)
        survive = self._survive(healthy)
        contact = self._contact_cost(state)
        costs = ctrl if contact is None else ctrl + contact
        return Rewards(forward + survive - costs, forward, -ctrl, survive, None if contact is None else -contact)

    def _survive(self, healthy: npt.NDArray[np.bool_]) -> Array:
        """The bonus and the reward for being healthy, (n,)."""
        return self.bonus + (healthy.astype(np.float64) if self.healthy_z is not None else np.zeros(len(healthy)))

    def _forward(self, velocity: Array, tasks: Array) -> Array:
        """The part of the reward that the task decides, (n,)."""
        if self.objective == "velocity":
            return -np.abs(velocity[:, 0] - tasks)
        return tasks * velocity[:, 0] if self.objective == "direction" else velocity[:, 0]

    def _contact_cost(self, state: State) -> Array | None:
        """(n,), or ``None`` without contact forces."""
        if self.contact_cost is None:
            return None
        return self.contact_cost * np.sum(np.square(_clipped_forces(state)), axis=1)


def _clipped_forces(state: State) -> Array:
    """Contact forces on every body as Gymnasium's Ant clips them, (n, 6 n_bodies)."""
    forces = state["cfrc_ext"]
    return np.clip(forces.reshape(len(forces), -1), -1.0, 1.0)


def half_cheetah(objective: Literal["velocity", "direction"]) -> LocomotionFamily:
    """
    Make HalfCheetah, with control cost 0.05 and no termination.

    :param objective: the kind of task
    """
    return LocomotionFamily(objective, n_skipped=1, ctrl_cost=0.05)


def ant(objective: Literal["velocity", "direction"], contact_forces: bool = False) -> LocomotionFamily:
    """
    Make Ant, with control cost 0.005, bonus 0.05, and a healthy reward of 1 while its height is within [0.2, 1].

    :param objective: the kind of task
    :param contact_forces: whether contact forces are observed and cost reward
    """
    return LocomotionFamily(
        objective,
        n_skipped=2,
        ctrl_cost=0.005,
        bonus=0.05,
        root_body=1,
        healthy_z=(0.2, 1.0),
        contact_cost=ANT_CONTACT_COST if contact_forces else None,
    )
