"""
Task families on Gymnasium's classic control, whose dynamics have hidden parameters.

With the default task, each equals Gymnasium's environment of the same name step for step, and seed for seed.
"""

from functools import partial

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from sb3_bomrl.envs.array_env import Advanced, Array, ArrayTaskEnv
from sb3_bomrl.envs.drawn_tasks import DrawnTasks


def _box(*high: float) -> spaces.Box:
    bound = np.array(high, dtype=np.float32)
    return spaces.Box(-bound, bound, dtype=np.float32)


def _with_sign(low: float, high: float, rng: np.random.Generator) -> float:
    """± U(low, high)."""
    return float(rng.choice([-1.0, 1.0]) * rng.uniform(low, high))


class CartPoleForceEnv(ArrayTaskEnv):
    """
    CartPole-v1 whose force, the task, is hidden in sign and size: ± U(5, 15) newtons.

    The observation is the position and speed of the cart, the angle and angular velocity of the pole, (4,). Action 1
    pushes with the force, action 0 against it. Every step pays 1, and an episode terminates where the cart is further
    than 2.4 from the middle, or the pole leans by more than 12 degrees.
    """

    observation_space = _box(4.8, np.inf, np.pi * 24 / 180, np.inf)
    action_space = spaces.Discrete(2)
    horizon = 500
    task_distribution = DrawnTasks(
        partial(_with_sign, 5.0, 15.0), 10.0, [-14.0, -10.0, -6.0, 6.0, 10.0, 14.0], "the force in newtons"
    )

    def start(self, rng: np.random.Generator) -> Array:
        """Draw from U(-0.05, 0.05)."""
        return rng.uniform(-0.05, 0.05, size=4)

    def advance(self, states: Array, actions: npt.NDArray, tasks: Array) -> Advanced:
        """Push, by Euler's method in steps of 0.02 s; cart of 1 kg, pole of 0.1 kg and half-length 0.5 m."""
        _, speed, angle, spin = states.T
        force, sine, cosine = np.where(actions == 1, tasks[:, 0], -tasks[:, 0]), np.sin(angle), np.cos(angle)
        push = (force + 0.05 * spin**2 * sine) / 1.1
        turn = (9.8 * sine - cosine * push) / (0.5 * (4.0 / 3.0 - 0.1 * cosine**2 / 1.1))
        slopes = np.array([speed, push - 0.05 * turn * cosine / 1.1, spin, turn])
        new = states + 0.02 * slopes.T
        fallen = (np.abs(new[:, 0]) > 2.4) | (np.abs(new[:, 2]) > np.pi * 12 / 180)
        return new, np.ones(len(new)), fallen


def _draw_pendulum(rng: np.random.Generator) -> Array:
    return rng.uniform((0.7, 0.7, 7.0), (1.3, 1.3, 12.0))


def _is_pendulum(task: tuple[float, float, float]) -> bool:
    mass, length, _ = task
    return mass > 0.0 and length > 0.0


class PendulumParamsEnv(ArrayTaskEnv):
    """
    Pendulum-v1 whose mass, length and gravity are hidden.

    The task is (m, l, g), U(0.7, 1.3) kg, U(0.7, 1.3) m and U(7, 12) m/s². The observation is cosine and sine of the
    angle, 0 upright, and the angular velocity, (3,). The action is the torque, (1,), at most 2. The reward is minus
    angle² + 0.1 velocity² + 0.001 torque², and the episode never terminates.
    """

    observation_space = _box(1.0, 1.0, 8.0)
    action_space = _box(2.0)
    horizon = 200
    task_distribution = DrawnTasks(
        _draw_pendulum,
        (1.0, 1.0, 10.0),
        [(0.8, 0.8, 8.0), (0.8, 1.2, 10.0), (1.2, 0.8, 11.0), (1.2, 1.2, 8.0), (1.0, 1.0, 10.0), (1.0, 0.9, 9.0)],
        "mass and length, above 0, and gravity",
        _is_pendulum,
    )

    def start(self, rng: np.random.Generator) -> Array:
        """Draw any angle, and a velocity in U(-1, 1)."""
        return rng.uniform([-np.pi, -1.0], [np.pi, 1.0])

    def observe(self, states: Array) -> npt.NDArray[np.float32]:
        """Show the angle as a point of the unit circle."""
        angle, spin = states.T
        return np.array([np.cos(angle), np.sin(angle), spin], dtype=np.float32).T

    def advance(self, states: Array, actions: npt.NDArray, tasks: Array) -> Advanced:
        """Turn, by the semi-implicit Euler method in steps of 0.05 s."""
        (angle, spin), (mass, length, gravity), torque = states.T, tasks.T, actions[:, 0]
        lean = (angle + np.pi) % (2.0 * np.pi) - np.pi
        cost = lean**2 + 0.1 * spin**2 + 0.001 * torque**2
        turn = 3.0 * gravity / (2.0 * length) * np.sin(angle) + 3.0 / (mass * length**2) * torque
        spin = (spin + 0.05 * turn).clip(-8.0, 8.0)
        return np.array([angle + 0.05 * spin, spin]).T, -cost, None


class AcrobotTorqueEnv(ArrayTaskEnv):
    """
    Acrobot-v1 whose torque, the task, is hidden in sign and size: ± U(0.8, 1.5).

    The observation is cosine and sine of both joints' angles, 0 hanging, and their velocities, (6,). Actions 0, 1 and 2
    turn the second joint by minus the torque, not at all, and by the torque. Every step pays -1 until the tip is one
    link above the first joint, where the episode terminates.
    """

    observation_space = _box(1.0, 1.0, 1.0, 1.0, 4.0 * np.pi, 9.0 * np.pi)
    action_space = spaces.Discrete(3)
    horizon = 200
    task_distribution = DrawnTasks(partial(_with_sign, 0.8, 1.5), 1.0, [-1.4, -1.1, -0.9, 0.9, 1.1, 1.4], "the torque")

    def start(self, rng: np.random.Generator) -> Array:
        """Draw from U(-0.1, 0.1), in single precision."""
        return rng.uniform(-0.1, 0.1, size=4).astype(np.float32).astype(np.float64)

    def observe(self, states: Array) -> npt.NDArray[np.float32]:
        """Show angles as points of the unit circle."""
        first, second, spin1, spin2 = states.T
        columns = [np.cos(first), np.sin(first), np.cos(second), np.sin(second), spin1, spin2]
        return np.array(columns, dtype=np.float32).T

    def advance(self, states: Array, actions: npt.NDArray, tasks: Array) -> Advanced:
        """Turn, by a Runge–Kutta step of order 4 over 0.2 s."""
        torque, h = (actions - 1) * tasks[:, 0], 0.2
        k1 = _acrobot_slopes(states.T, torque)
        k2 = _acrobot_slopes(states.T + h / 2.0 * k1, torque)
        k3 = _acrobot_slopes(states.T + h / 2.0 * k2, torque)
        k4 = _acrobot_slopes(states.T + h * k3, torque)
        new = states.T + h / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)
        new[:2] = (new[:2] + np.pi) % (2.0 * np.pi) - np.pi
        new[2] = new[2].clip(-4.0 * np.pi, 4.0 * np.pi)
        new[3] = new[3].clip(-9.0 * np.pi, 9.0 * np.pi)
        up = -np.cos(new[0]) - np.cos(new[0] + new[1]) > 1.0
        return new.T, np.where(up, 0.0, -1.0), up


def _acrobot_slopes(states: Array, torque: Array) -> Array:
    """Velocities and accelerations, (4, n), of links of 1 kg, 1 m, centre at 0.5 m and moment of inertia 1."""
    first, second, spin1, spin2 = states
    d1 = 1.25 + np.cos(second) + 0.25 + 2.0
    d2 = 0.25 + 0.5 * np.cos(second) + 1.0
    phi2 = 0.5 * 9.8 * np.cos(first + second - np.pi / 2.0)
    coupling = -0.5 * spin2**2 * np.sin(second) - spin2 * spin1 * np.sin(second)
    phi1 = coupling + 1.5 * 9.8 * np.cos(first - np.pi / 2.0) + phi2
    turn2 = (torque + d2 / d1 * phi1 - 0.5 * spin1**2 * np.sin(second) - phi2) / (1.25 - d2**2 / d1)
    return np.array([spin1, spin2, -(d2 * turn2 + phi1) / d1, turn2])


class MountainCarPowerEnv(ArrayTaskEnv):
    """
    MountainCarContinuous-v0 whose power, the task, is hidden in sign and size: ± U(0.0015, 0.003).

    The observation is position and speed, (2,), the action the force as a fraction of the power, (1,). A step costs
    0.1 force², and the top, at 0.45, pays 100 and terminates the episode.
    """

    observation_space = spaces.Box(np.array([-1.2, -0.07], np.float32), np.array([0.6, 0.07], np.float32))
    action_space = _box(1.0)
    horizon = 200
    task_distribution = DrawnTasks(
        partial(_with_sign, 0.0015, 0.003),
        0.0015,
        [-0.0028, -0.0022, -0.0017, 0.0017, 0.0022, 0.0028],
        "the power",
    )

    def start(self, rng: np.random.Generator) -> Array:
        """Draw a position in U(-0.6, -0.4), at rest."""
        return np.array([rng.uniform(-0.6, -0.4), 0.0])

    def advance(self, states: Array, actions: npt.NDArray, tasks: Array) -> Advanced:
        """Drive; a wall at -1.2 stops the car."""
        (position, speed), force = states.T, actions[:, 0]
        speed = (speed + force * tasks[:, 0] - 0.0025 * np.cos(3.0 * position)).clip(-0.07, 0.07)
        position = (position + speed).clip(-1.2, 0.6)
        speed = np.where((position <= -1.2) & (speed < 0.0), 0.0, speed)
        on_top = (position >= 0.45) & (speed >= 0.0)
        return np.array([position, speed]).T, np.where(on_top, 100.0, 0.0) - 0.1 * force**2, on_top
