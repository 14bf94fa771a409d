"""
Locomotion families as functions of arrays with a leading batch axis.

Written once: the single Gymnasium environments call them with a batch of one, the batched physics with all of its
simulations, so that the two cannot drift apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


class Rewards(NamedTuple):
    """The reward of one step and its parts, each of shape (n,)."""

    total: Array
    forward: Array
    ctrl: Array
    survive: Array

    def parts(self) -> dict[str, Array]:
        """The parts under the names that ``info`` uses."""
        return {"reward_forward": self.forward, "reward_ctrl": self.ctrl, "reward_survive": self.survive}


@dataclass(frozen=True)
class LocomotionFamily:
    r"""
    Initial state, observation, reward and termination of a locomotion family.

    The reward of a step is :math:`f + b + h - c\,\|a\|^2` with
    :math:`f = -|\dot x - v|` (``objective="velocity"``) or :math:`f = d\,\dot x` (``"direction"``), a bonus
    :math:`b`, and :math:`h = 1` while a legged body is healthy.

    :param xml_file: Gymnasium's model file
    :param objective: what the task stands for
    :param n_skipped: leading coordinates of ``qpos`` that the observation leaves out
    :param ctrl_cost: c
    :param bonus: b
    :param root_body: body whose ``xpos`` gives the velocity, ``None`` for ``qpos[0]``; ``xpos`` lags by one substep,
        as it does in Gymnasium's Ant
    :param healthy_z: range of the height ``qpos[2]`` outside which the episode ends, ``None`` for never
    :param frame_skip: physics steps per environment step
    :param reset_noise: scale of the initial noise
    """

    xml_file: str
    objective: Literal["velocity", "direction"]
    n_skipped: int
    ctrl_cost: float
    bonus: float = 0.0
    root_body: int | None = None
    healthy_z: tuple[float, float] | None = None
    frame_skip: int = 5
    reset_noise: float = 0.1

    def initial_noise(self, rngs: Sequence[np.random.Generator], nq: int, nv: int) -> tuple[Array, Array]:
        """
        Noise around the model's initial state, one generator per environment, in Gymnasium's order of draws.

        :param rngs: n generators
        :param nq: number of positions
        :param nv: number of velocities
        :return: noise of positions (n, nq) and of velocities (n, nv)
        """
        position, velocity = np.empty((len(rngs), nq)), np.empty((len(rngs), nv))
        for i, rng in enumerate(rngs):
            position[i] = rng.uniform(low=-self.reset_noise, high=self.reset_noise, size=nq)
            velocity[i] = self.reset_noise * rng.standard_normal(nv)
        return position, velocity

    def observation(self, qpos: Array, qvel: Array) -> Array:
        """
        :param qpos: (n, nq)
        :param qvel: (n, nv)
        :return: (n, nq - n_skipped + nv), a copy
        """
        return np.concatenate((qpos[:, self.n_skipped :], qvel), axis=1)

    def position(self, qpos: Array, xpos: Array | None) -> Array:
        """
        The point of the body whose velocity counts.

        :param qpos: (n, nq)
        :param xpos: body positions (n, n_bodies, 3), needed where ``root_body`` is set
        :return: (n, 1) or (n, 2), a copy
        """
        if self.root_body is None:
            return qpos[:, :1].copy()
        assert xpos is not None
        return xpos[:, self.root_body, :2].copy()

    def healthy(self, qpos: Array) -> npt.NDArray[np.bool_]:
        """
        :param qpos: (n, nq)
        :return: (n,), false where the body has fallen or jumped too high
        """
        if self.healthy_z is None:
            return np.ones(len(qpos), dtype=bool)
        low, high = self.healthy_z
        return (low <= qpos[:, 2]) & (qpos[:, 2] <= high)

    def reward(self, x_velocity: Array, actions: npt.NDArray, healthy: npt.NDArray[np.bool_], tasks: Array) -> Rewards:
        """
        The reward of one step.

        :param x_velocity: (n,)
        :param actions: (n, nu), as given to ``step``
        :param healthy: (n,)
        :param tasks: (n,), goal velocities or directions
        :return: total and parts, (n,) each
        """
        forward = -np.abs(x_velocity - tasks) if self.objective == "velocity" else tasks * x_velocity
        squares = np.square(np.ascontiguousarray(actions, dtype=np.float64))
        ctrl = -self.ctrl_cost * np.sum(squares, axis=1)
        survive = self.bonus + (healthy.astype(np.float64) if self.healthy_z is not None else np.zeros(len(healthy)))
        return Rewards(forward + survive + ctrl, forward, ctrl, survive)


def half_cheetah(objective: Literal["velocity", "direction"]) -> LocomotionFamily:
    """HalfCheetah with control cost 0.05 and no termination."""
    return LocomotionFamily("half_cheetah.xml", objective, n_skipped=1, ctrl_cost=0.05)


def ant(objective: Literal["velocity", "direction"]) -> LocomotionFamily:
    """Ant with control cost 0.005, bonus 0.05, and a healthy reward of 1 while its height is within (0.2, 1)."""
    return LocomotionFamily(
        "ant.xml", objective, n_skipped=2, ctrl_cost=0.005, bonus=0.05, root_body=1, healthy_z=(0.2, 1.0)
    )
