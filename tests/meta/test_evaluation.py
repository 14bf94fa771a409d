"""Returns by episode on rollouts made by hand, and the adaptation curve against a scripted collector."""

import numpy as np
import pytest
import torch as th

from sb3_bomrl.algorithms.evaluation import adaptation_curve
from sb3_bomrl.rollout.returns import episode_returns, lengths_per_episode, returns_per_episode
from sb3_bomrl.types import Rollout


def make_rollout(episodes: list[list[list[list[float]]]], shares: list[list[int]] | None = None) -> Rollout:
    """
    ``episodes[task][env]`` is a list of episodes, each a list of rewards; ``shares`` of them count, the rest is masked.

    The end is padded with rewards of 100 that must not be seen.
    """
    n_tasks, n_envs = len(episodes), len(episodes[0])
    n_steps = 1 + max(sum(map(len, env)) for task in episodes for env in task)
    rewards = th.full((n_tasks, n_steps, n_envs), 100.0)
    starts, ends, mask = (th.zeros(n_tasks, n_steps, n_envs, dtype=th.bool) for _ in range(3))
    for task, env in np.ndindex(n_tasks, n_envs):
        step = 0
        for number, episode in enumerate(episodes[task][env]):
            stop = step + len(episode)
            rewards[task, step:stop, env] = th.tensor(episode)
            starts[task, step, env] = ends[task, stop - 1, env] = True
            mask[task, step:stop, env] = shares is None or number < shares[task][env]
            step = stop
    nothing = th.zeros_like(mask)
    return Rollout(rewards, rewards, rewards, rewards, starts, ends, nothing, rewards[0, :0, 0], mask, rewards, rewards)


# two tasks, three environments: unequal shares, an environment without any, episodes of different lengths
EPISODES = [
    [[[1.0, 2.0], [4.0]], [[8.0, 16.0, 32.0]], [[500.0], [600.0, 700.0]]],
    [[[-1.0], [-2.0, -4.0], [900.0]], [[-8.0], [900.0]], [[800.0, 800.0]]],
]
SHARES = [[2, 1, 0], [2, 1, 0]]
RETURNS = [[3.0, 4.0, 56.0], [-1.0, -6.0, -8.0]]
LENGTHS = [[2, 1, 3], [1, 2, 1]]


def test_returns_and_lengths_are_those_of_the_episodes_that_count():
    rollout = make_rollout(EPISODES, SHARES)
    assert returns_per_episode(rollout, 3).tolist() == RETURNS
    assert lengths_per_episode(rollout, 3).tolist() == LENGTHS
    assert episode_returns(rollout).tolist() == pytest.approx([21.0, -5.0])
    assert returns_per_episode(rollout, 3).dtype == np.float64


def test_without_a_mask_every_episode_counts_the_cut_off_ones_with_what_they_earned():
    rollout = make_rollout([[[[1.0, 2.0], [4.0]], [[8.0, 16.0], [32.0]]]])
    rewards = rollout.rewards[:, :3]
    whole = rollout._replace(rewards=rewards, true_rewards=rewards, mask=rollout.mask[:, :3])
    whole = whole._replace(episode_starts=rollout.episode_starts[:, :3], episode_ends=rollout.episode_ends[:, :3])
    assert bool(whole.mask.all())
    assert returns_per_episode(whole, 4).tolist() == [[3.0, 4.0, 24.0, 32.0]]
    assert episode_returns(whole).tolist() == [63.0 / 4]


def test_sums_are_taken_in_double_precision():
    rollout = make_rollout([[[[16777216.0, 1.0, 1.0]]]])
    assert returns_per_episode(rollout, 1)[0, 0] == 16777218.0


class ScriptedCollector:
    """Every step pays the policy's parameter plus the task; adaptation episodes have two steps, scored ones three."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, int, bool]] = []

    def collect_episodes(self, tasks, params, n_episodes, deterministic=False, max_episode_steps=None):
        value = params["value"]
        self.calls.append((float(value[0]), n_episodes, deterministic))
        n_steps = 3 if deterministic else 2
        shares = [[n_episodes - n_episodes // 2, n_episodes // 2] for _ in tasks]
        rewards = [float(v) + task for v, task in zip(value, tasks, strict=True)]
        episodes = [[[[reward] * n_steps] * shares[0][0]] * 2 for reward in rewards]
        return make_rollout(episodes, shares)


def add_ten(params, support, n_adapted):
    assert bool((support.mask.sum((1, 2)) == 2 * 5).all())
    assert float(params["value"][0]) == 10.0 * n_adapted
    return {"value": params["value"] + 10.0}


def test_the_curve_scores_fresh_episodes_of_every_policy_and_counts_only_the_steps_of_adaptation():
    collector, start = ScriptedCollector(), {"value": th.zeros(2)}
    curve = adaptation_curve(
        collector,
        add_ten,
        start,
        tasks=[0.0, 1.0],
        n_adaptation_steps=2,
        n_episodes=5,
        n_eval_episodes=4,
        deterministic=True,
        measure=lambda rollout: rollout.mask.sum((1, 2)).numpy(),
    )
    # scored, adapted to, scored, adapted to, scored: each time with the current policy, adaptation always stochastic
    support, scored = (5, False), (4, True)
    assert collector.calls == [(0, *scored), (0, *support), (10, *scored), (10, *support), (20, *scored)]
    assert curve.tasks == [0.0, 1.0]
    assert curve.returns.shape == curve.lengths.shape == (3, 2, 4)
    assert curve.returns[..., 0].tolist() == [[0.0, 3.0], [30.0, 33.0], [60.0, 63.0]]
    assert bool((curve.returns == curve.returns[..., :1]).all())
    assert bool((curve.lengths == 3).all())
    assert curve.env_steps.tolist() == [[0, 0], [10, 10], [20, 20]]
    assert [p["value"].tolist() for p in curve.params] == [[0.0, 0.0], [10.0, 10.0], [20.0, 20.0]]
    assert curve.measured.tolist() == [[12, 12]] * 3


def test_without_adaptation_the_curve_is_the_score_of_the_meta_policy():
    collector = ScriptedCollector()
    curve = adaptation_curve(collector, add_ten, {"value": th.zeros(1)}, [2.0], 0, 5, 2, deterministic=False)
    assert collector.calls == [(0.0, 2, False)]
    assert curve.returns.tolist() == [[[4.0, 4.0]]]
    assert curve.env_steps.tolist() == [[0]]
    assert curve.measured is None
