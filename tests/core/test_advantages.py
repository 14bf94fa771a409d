"""Advantages and the linear baseline against SB3's buffer, loops and a process with a known value."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer

from sb3_bomrl.core import advantages
from sb3_bomrl.core.advantages import (
    baseline_features,
    centre,
    fit_linear_baseline,
    generalized_advantages,
    normalize,
)

GAMMA = 0.93


def ragged(seed: int, n_tasks: int = 3, n_steps: int = 40, n_envs: int = 2, p_end: float = 0.1) -> dict[str, th.Tensor]:
    """Random data whose episodes end anywhere, half of them cut off; the last step always ends one."""
    generator = th.Generator().manual_seed(seed)
    shape = (n_tasks, n_steps, n_envs)
    ends = th.rand(shape, generator=generator) < p_end
    ends[:, -1] = True
    truncated = ends & (th.rand(shape, generator=generator) < 0.5)
    draw = lambda *extra: th.randn(*shape, *extra, generator=generator, dtype=th.float64)  # noqa: E731
    n_final = int(truncated.sum())
    return {
        "features": th.cat([draw(3), th.ones(*shape, 1, dtype=th.float64)], dim=-1),
        "final_features": th.randn(n_final, 4, generator=generator, dtype=th.float64),
        "rewards": draw(),
        "episode_ends": ends,
        "truncated": truncated,
        "mask": th.rand(shape, generator=generator) < 0.9,
    }


def one_task(data: dict[str, th.Tensor], task: int) -> dict[str, th.Tensor]:
    owner = data["truncated"].nonzero()[:, 0]
    single = {k: v[task : task + 1] for k, v in data.items() if k != "final_features"}
    return {**single, "final_features": data["final_features"][owner == task]}


def final_values(data: dict[str, th.Tensor], w: th.Tensor) -> th.Tensor:
    """V(s_{t+1}) = wᵀf where an episode was cut off, 0 elsewhere."""
    out = th.zeros_like(data["rewards"])
    out[data["truncated"]] = (data["final_features"] * w[data["truncated"].nonzero()[:, 0]]).sum(-1)
    return out


def returns_by_loop(data: dict[str, th.Tensor], cut: th.Tensor) -> th.Tensor:
    """Discounted returns, with the values of the cut-off ends in ``cut``."""
    returns, future = th.zeros_like(data["rewards"]), th.zeros(3, 2, dtype=th.float64)
    for t in reversed(range(returns.shape[1])):
        going = (~data["episode_ends"][:, t]).double()
        returns[:, t] = future = data["rewards"][:, t] + GAMMA * (cut[:, t] + going * future)
    return returns


def sb3_buffer(data: dict[str, th.Tensor], values: th.Tensor, cut: th.Tensor, gae_lambda: float) -> RolloutBuffer:
    """SB3's own advantages: cut-off episodes as ``collect_rollouts`` treats them, γ V(terminal_obs) in the reward."""
    _, n_steps, n_envs = data["rewards"].shape
    box = spaces.Box(-1, 1, (1,))
    buffer = RolloutBuffer(n_steps, box, box, "cpu", gae_lambda, GAMMA, n_envs)
    starts = np.ones(n_envs)
    ends = data["episode_ends"][0].numpy().copy()
    ends[-1, 0] = False  # the rollout of the first environment stops there in mid-episode
    for t in range(n_steps):
        timeout = data["truncated"][0, t].numpy() & ends[t]
        rewards = data["rewards"][0, t].numpy() + GAMMA * cut[0, t].numpy() * timeout
        zeros = np.zeros((n_envs, 1))
        buffer.add(zeros, zeros, rewards, starts, values[0, t], th.zeros(n_envs))
        starts = ends[t]
    buffer.compute_returns_and_advantage(cut[0, -1], ends[-1])
    return buffer


@pytest.mark.parametrize("gae_lambda", [0.0, 0.9, 1.0])
def test_advantages_equal_sb3s_buffer(gae_lambda):
    data = ragged(0, n_tasks=1, n_steps=60)
    data["truncated"][0, -1, 0] = True
    values, cut = th.randn(1, 60, 2, generator=th.Generator().manual_seed(7)).double(), th.zeros(1, 60, 2).double()
    n_cut = int(data["truncated"].sum())
    assert 0 < n_cut < int(data["episode_ends"].sum())
    cut[data["truncated"]] = th.randn(n_cut, generator=th.Generator().manual_seed(8)).double()
    buffer = sb3_buffer(data, values, cut, gae_lambda)
    got = generalized_advantages(data["rewards"], values, cut, data["episode_ends"], GAMMA, gae_lambda)
    assert np.allclose(got[0].numpy(), buffer.advantages, atol=1e-5)


@pytest.mark.parametrize("n_steps", [1, 2, 33])
def test_advantages_equal_a_loop_in_double_precision(n_steps):
    data = ragged(1, n_steps=n_steps)
    ends, rewards = data["episode_ends"], data["rewards"]
    values, cut = data["features"][..., 0], final_values(data, th.ones(3, 4, dtype=th.float64))
    advantage, expected = th.zeros(3, 2, dtype=th.float64), th.zeros_like(rewards)
    for t in reversed(range(n_steps)):
        going = (~ends[:, t]).double()
        following = values[:, t + 1] if t + 1 < n_steps else 0.0
        delta = rewards[:, t] + GAMMA * (cut[:, t] + going * following) - values[:, t]
        expected[:, t] = advantage = delta + GAMMA * 0.9 * going * advantage
    got = generalized_advantages(rewards, values, cut, ends, GAMMA, 0.9)
    assert th.allclose(got, expected, rtol=0, atol=1e-13)


@pytest.fixture
def no_ridge(monkeypatch):
    monkeypatch.setattr(advantages, "RIDGE", 1e-12)


def test_baseline_recovers_a_value_function_that_is_linear(no_ridge):
    """s' = M s deterministically, V(s) = vᵀs + c, hence r = V(s) − γ V(s'); cut off at arbitrary times."""
    generator = th.Generator().manual_seed(0)
    n_tasks, n_steps, n_envs, dim = 2, 30, 3, 3
    truth = th.randn(n_tasks, dim + 1, generator=generator, dtype=th.float64)
    step = 0.95 * th.linalg.qr(th.randn(dim, dim, generator=generator, dtype=th.float64)).Q
    data = ragged(2, n_tasks, n_steps, n_envs)
    data["truncated"] = data["episode_ends"].clone()
    state = th.randn(n_tasks, n_envs, dim, generator=generator, dtype=th.float64)
    states, following = [], []
    for t in range(n_steps):
        states.append(state)
        following.append(state @ step)
        fresh = th.randn(state.shape, generator=generator, dtype=th.float64)
        state = th.where(data["episode_ends"][:, t, :, None], fresh, following[-1])
    features, after = (th.nn.functional.pad(th.stack(x, 1), (0, 1), value=1.0) for x in (states, following))
    value = lambda x: th.einsum("nted,nd->nte", x, truth)  # noqa: E731
    rewards = value(features) - GAMMA * value(after)
    data |= {"features": features, "rewards": rewards, "final_features": after[data["truncated"]]}
    assert th.allclose(fit_linear_baseline(**data, gamma=GAMMA), truth, atol=1e-8)
    data["mask"][0, :10] = False  # fewer steps recover it as well
    assert th.allclose(fit_linear_baseline(**data, gamma=GAMMA), truth, atol=1e-8)


@pytest.mark.parametrize("seed", range(5))
def test_baseline_is_the_fit_to_the_returns_that_it_truncated_itself(seed, monkeypatch):
    """w = argmin_v Σ (vᵀf − R(w))² + ε‖v‖², with the returns R(w) from a loop and lstsq for the fit."""
    data, ridge = ragged(seed), 1e-3
    monkeypatch.setattr(advantages, "RIDGE", ridge)
    w = fit_linear_baseline(**data, gamma=GAMMA)
    targets = returns_by_loop(data, final_values(data, w))
    for task in range(3):
        f, y = data["features"][task][data["mask"][task]], targets[task][data["mask"][task]]
        root = (ridge * f.square().sum(0).mean()).sqrt() * th.eye(4, dtype=th.float64)
        fit = th.linalg.lstsq(th.cat([f, root]), th.cat([y, th.zeros(4, dtype=th.float64)])).solution
        assert th.allclose(fit, w[task], atol=1e-10)


def test_baseline_without_cut_off_episodes_is_regression_on_returns(no_ridge):
    data = ragged(3)
    data["truncated"][:] = False
    data["final_features"] = data["final_features"][:0]
    data["mask"][:] = True
    w = fit_linear_baseline(**data, gamma=GAMMA)
    returns = returns_by_loop(data, th.zeros_like(data["rewards"]))
    fit = th.linalg.lstsq(data["features"].flatten(1, 2), returns.flatten(1, 2)[..., None]).solution
    assert th.allclose(w, fit.squeeze(-1), atol=1e-8)


def test_baseline_of_a_batch_is_the_baseline_of_each_task():
    data = ragged(4, n_tasks=4)
    together = fit_linear_baseline(**data, gamma=GAMMA)
    alone = th.cat([fit_linear_baseline(**one_task(data, i), gamma=GAMMA) for i in range(4)])
    assert th.allclose(together, alone, rtol=1e-10)


def test_padding_does_not_change_the_baseline():
    data = ragged(5)
    padded = {k: v if k == "final_features" else th.cat([v, v.new_zeros(v[:, :9].shape)], 1) for k, v in data.items()}
    assert th.allclose(fit_linear_baseline(**padded, gamma=GAMMA), fit_linear_baseline(**data, gamma=GAMMA), rtol=1e-10)


def test_baseline_survives_useless_data():
    data = ragged(6)
    data["mask"][1] = False  # a task without a single step
    data["features"][2] = 0.0
    assert fit_linear_baseline(**data, gamma=GAMMA).isfinite().all()


def test_features_are_observation_square_and_constant():
    o = th.tensor([[1.0, -2.0], [100.0, 0.0]])
    expected = th.tensor([[1.0, -2.0, 1.0, 4.0, 1.0], [10.0, 0.0, 100.0, 0.0, 1.0]], dtype=th.float64)
    assert th.equal(baseline_features(o), expected)


def test_normalize_centres_and_scales_what_counts():
    data = ragged(7)
    x, mask = 5 + 3 * data["rewards"], data["mask"]
    x[~mask] = 1e6
    scaled, centred = normalize(x, mask, x), centre(x, mask)
    for task in range(3):
        kept = x[task][mask[task]].numpy()
        assert np.allclose(scaled[task][mask[task]], (kept - kept.mean()) / kept.std(), atol=1e-6)
        assert np.allclose(centred[task][mask[task]], kept - kept.mean(), atol=1e-9)
    assert (scaled[~mask] == 0).all()
    assert (centred[~mask] == 0).all()
    assert (normalize(th.full((1, 4, 1), 7.0), th.ones(1, 4, 1, dtype=th.bool), th.ones(1, 4, 1)) == 0).all()
    assert normalize(x, th.zeros_like(mask), x).isfinite().all()


@pytest.mark.parametrize("dtype", [th.float32, th.float64])
@pytest.mark.parametrize("shared_scale", [False, True])
@pytest.mark.parametrize("unit", [1e-30, 1e-12, 1e-8, 1e6, 1e30])
def test_normalised_advantages_do_not_depend_on_the_unit_of_the_rewards(unit, shared_scale, dtype):
    data = ragged(7)
    rewards, mask = data["rewards"].to(dtype), data["mask"]
    expected = normalize(rewards, mask, rewards, shared_scale)
    scaled = normalize(unit * rewards, mask, unit * rewards, shared_scale)
    th.testing.assert_close(scaled, expected, rtol=1e-5, atol=1e-6)


def test_rounding_errors_are_no_advantages():
    th.manual_seed(0)
    mask = th.ones(2, 50, 4, dtype=th.bool)
    noise = 1e-15 * th.randn(mask.shape, dtype=th.double)
    for unit in (1e-12, 1.0, 1e6):
        rewards = unit * th.ones(mask.shape, dtype=th.double)
        assert normalize(unit * noise, mask, rewards).abs().max() < 1e-5
        assert (normalize(th.zeros_like(rewards), mask, rewards, shared_scale=True) == 0).all()
        assert (normalize(th.zeros_like(rewards), mask, 0 * rewards) == 0).all()


def test_a_shared_scale_keeps_the_stakes_of_the_tasks():
    th.manual_seed(0)
    values = th.randn(3, 40, 5, dtype=th.double) * th.tensor([1.0, 3.0, 10.0], dtype=th.double)[:, None, None]
    mask = th.rand(3, 40, 5) < 0.8
    shared = normalize(values, mask, values, shared_scale=True)
    centred = centre(values, mask)
    ratio = shared[mask] / centred[mask]
    th.testing.assert_close(ratio, ratio[:1].expand_as(ratio))  # one factor for all tasks
    per_task = (shared.square().sum((1, 2)) / mask.sum((1, 2))).mean()
    th.testing.assert_close(per_task, th.tensor(1.0, dtype=th.double), rtol=0, atol=1e-6)
