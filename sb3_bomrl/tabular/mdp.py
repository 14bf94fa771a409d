"""Finite Markov decision processes, one or a batch of them, in double precision."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch as th

from sb3_bomrl.checks import check_positive

DEFAULT_GAMMA = 0.99
_SUM_TOLERANCE = 1e-6

TransitionTable = dict[int, dict[int, list[tuple[float, int, float, bool]]]]
"""Gymnasium's toy-text format: state -> action -> [(probability, next state, reward, terminated)]."""


@dataclass(frozen=True)
class FiniteMDP:
    """
    A finite MDP, or a batch of MDPs (tasks) of one size with the batch axes in front: (n_tasks, ...).

    :param transition: P(s' | s, a), shape (..., S, A, S); rows sum to 1 (within 1e-6)
    :param reward: expected reward r(s, a), shape (..., S, A)
    :param initial: distribution rho of the first state, shape (..., S); sums to 1
    :param gamma: discount factor, 0 <= gamma < 1
    :raises ValueError: if a shape, a row or ``gamma`` is wrong; the message says which row
    """

    transition: th.Tensor
    reward: th.Tensor
    initial: th.Tensor
    gamma: float

    def __post_init__(self) -> None:
        for name in ("transition", "reward", "initial"):
            object.__setattr__(self, name, th.as_tensor(getattr(self, name)).to(th.float64))
        if not 0 <= self.gamma < 1:
            raise ValueError(f"gamma must satisfy 0 <= gamma < 1, got {self.gamma}")
        self._check_shapes()
        _check_distribution("transition", self.transition)
        _check_distribution("initial", self.initial)
        _check_finite("reward", self.reward)

    def _check_shapes(self) -> None:
        shape = self.transition.shape
        if len(shape) < 3 or shape[-1] != shape[-3] or 0 in shape:
            raise ValueError(f"transition must have shape (..., S, A, S) with S, A >= 1, got {tuple(shape)}")
        for name, expected in (("reward", shape[:-1]), ("initial", shape[:-2])):
            if getattr(self, name).shape != expected:
                raise ValueError(
                    f"{name} must have shape {tuple(expected)} to fit transition {tuple(shape)}, "
                    f"got {tuple(getattr(self, name).shape)}"
                )

    @property
    def n_states(self) -> int:
        """S, the number of states."""
        return self.transition.shape[-1]

    @property
    def n_actions(self) -> int:
        """A, the number of actions."""
        return self.transition.shape[-2]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The batch axes: () for one MDP, (n_tasks,) for a batch of tasks."""
        return tuple(self.transition.shape[:-3])

    def __getitem__(self, index: Any) -> "FiniteMDP":
        """
        Select MDPs of the batch.

        :param index: any index of the batch axes of a tensor
        :return: one MDP, or a batch
        :raises ValueError: if this is a single MDP
        """
        if not self.batch_shape:
            raise ValueError("this FiniteMDP is a single one: there is no batch axis to index")
        return FiniteMDP(self.transition[index], self.reward[index], self.initial[index], self.gamma)

    @classmethod
    def stack(cls, mdps: "list[FiniteMDP]") -> "FiniteMDP":
        """
        Join MDPs of one size and one discount factor to a batch.

        :param mdps: at least one MDP
        :return: batch of shape (n_mdps,)
        :raises ValueError: if there is none, or sizes or discount factors differ
        """
        if not mdps:
            raise ValueError("mdps must hold at least one FiniteMDP, got none")
        if len({(mdp.transition.shape, mdp.gamma) for mdp in mdps}) > 1:
            kinds = sorted({f"{tuple(mdp.transition.shape)} with gamma {mdp.gamma}" for mdp in mdps})
            raise ValueError(f"mdps must have one size and one gamma, got {', '.join(kinds)}")
        transition = th.stack([mdp.transition for mdp in mdps])
        reward = th.stack([mdp.reward for mdp in mdps])
        initial = th.stack([mdp.initial for mdp in mdps])
        return cls(transition, reward, initial, mdps[0].gamma)

    @classmethod
    def random(
        cls, n_states: int, n_actions: int, gamma: float, seed: int, n_tasks: int | None = None, branching: int = 3
    ) -> "FiniteMDP":
        """
        Draw a Garnet MDP: each (s, a) leads to ``branching`` random states with random probabilities.

        Rewards are standard normal, the distribution of the first state is uniform on the simplex.

        :param n_states: S
        :param n_actions: A
        :param gamma: discount factor in [0, 1)
        :param seed: seed of the draw
        :param n_tasks: size of the batch; None for a single MDP
        :param branching: number of successors of each (s, a), at most S
        :return: one MDP, or a batch of shape (n_tasks,)
        :raises ValueError: if a size is less than 1
        """
        sizes = {"n_states": n_states, "n_actions": n_actions, "branching": branching}
        sizes["n_tasks"] = 1 if n_tasks is None else n_tasks
        for name, size in sizes.items():
            check_positive(name, size, integer=True)
        rng = np.random.default_rng(seed)
        shape = () if n_tasks is None else (n_tasks,)
        rows = (*shape, n_states, n_actions)
        successors = rng.random((*rows, n_states)).argsort(axis=-1)[..., : min(branching, n_states)]
        transition = np.zeros((*rows, n_states))
        np.put_along_axis(transition, successors, rng.dirichlet(np.ones(successors.shape[-1]), size=rows), axis=-1)
        initial = rng.dirichlet(np.ones(n_states), size=shape)
        reward = rng.standard_normal(rows)
        return cls(th.as_tensor(transition), th.as_tensor(reward), th.as_tensor(initial), gamma)

    @classmethod
    def from_env(cls, env: Any, gamma: float | None = None) -> "FiniteMDP":
        """
        Read the tables of a toy-text environment, ``env.unwrapped.P`` and ``env.unwrapped.initial_state_distrib``.

        If episodes end in states that are not absorbing with reward 0, one state that is gets added as the last one,
        and they end there. Time limits are not part of the tables.

        :param env: environment with those tables
        :param gamma: discount factor; None for the environment's own ``gamma``, or 0.99 if it has none
        :return: one MDP
        :raises ValueError: if the environment has no such tables
        """
        unwrapped = getattr(env, "unwrapped", env)
        table = getattr(unwrapped, "P", None)
        initial = getattr(unwrapped, "initial_state_distrib", None)
        if table is None or initial is None:
            raise ValueError(f"env must have the tables P and initial_state_distrib (toy-text), got {env}")
        if gamma is None:
            gamma = float(getattr(unwrapped, "gamma", DEFAULT_GAMMA))
        transition, reward = _read_table(table)
        n_added = transition.shape[0] - len(initial)
        padded = np.concatenate([np.asarray(initial, dtype=np.float64), np.zeros(n_added)])
        return cls(th.as_tensor(transition), th.as_tensor(reward), th.as_tensor(padded), gamma)


def _read_table(table: TransitionTable) -> tuple[np.ndarray, np.ndarray]:
    """Transition (S, A, S) and reward (S, A) of a toy-text table, with an end state if one is needed."""
    n_states, n_actions = len(table), len(table[0])
    at_rest = {
        state
        for state in range(n_states)
        if all(to == state and pay == 0 for outcomes in table[state].values() for _, to, pay, _ in outcomes)
    }
    transition = np.zeros((n_states + 1, n_actions, n_states + 1))
    reward = np.zeros((n_states + 1, n_actions))
    transition[n_states, :, n_states] = 1.0
    for state in range(n_states):
        for action in range(n_actions):
            for probability, to, pay, terminated in table[state][action]:
                reward[state, action] += probability * pay
                target = n_states if terminated and to not in at_rest else to
                transition[state, action, target] += probability
    if not transition[:n_states, :, n_states].any():
        return transition[:n_states, :, :n_states], reward[:n_states]
    return transition, reward


def _check_finite(name: str, values: th.Tensor) -> None:
    bad = (~th.isfinite(values)).nonzero()
    if len(bad):
        index = tuple(bad[0].tolist())
        raise ValueError(f"{name} must be finite, got {values[index].item()} at {index}")


def _check_distribution(name: str, probabilities: th.Tensor) -> None:
    """Require distributions along the last axis; the error names the first row that is none."""
    _check_finite(name, probabilities)
    negative = (probabilities < 0).any(dim=-1)
    sums = probabilities.sum(dim=-1)
    bad = (negative | ((sums - 1).abs() > _SUM_TOLERANCE)).nonzero()
    if len(bad):
        index = tuple(bad[0].tolist())
        row = f" in row {index}" if index else ""
        raise ValueError(
            f"{name} must hold probabilities that sum to 1, got sum {sums[index].item():.9g} "
            f"and minimum {probabilities[index].min().item():.9g}{row}"
        )
