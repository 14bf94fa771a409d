"""Scans against plain loops."""

import pytest
import torch as th

from sb3_bomrl.core.scan import forward_scan, reverse_scan


def loop(x: th.Tensor, decay: th.Tensor) -> th.Tensor:
    """y_t = x_t + decay_t y_{t+1}, step by step."""
    y, steps = th.zeros_like(x[:, 0]), []
    for t in reversed(range(x.shape[1])):
        d = decay[:, t].reshape(*decay[:, t].shape, *[1] * (x.dim() - 3))
        y = x[:, t] + (d * y if t < x.shape[1] - 1 else 0)
        steps.append(y)
    return th.stack(steps[::-1], dim=1)


@pytest.mark.parametrize("n_steps", [1, 2, 3, 7, 64, 65, 200])
@pytest.mark.parametrize(("dtype", "tolerance"), [(th.float32, 2e-5), (th.float64, 1e-13)])
@pytest.mark.parametrize("shape", [(), (3,)])
def test_scans_equal_loops(n_steps, dtype, tolerance, shape):
    generator = th.Generator().manual_seed(n_steps)
    x = th.randn(2, n_steps, 3, *shape, generator=generator, dtype=dtype)
    decay = 0.99 * (th.rand(2, n_steps, 3, generator=generator) > 0.05).to(dtype)
    got = reverse_scan(x, decay)
    assert got.dtype == dtype
    assert (got - loop(x, decay)).abs().max() <= tolerance * (1 + loop(x, decay).abs().max())
    forward = forward_scan(x, decay)
    expected = loop(x.flip(1), decay.flip(1)).flip(1)
    assert (forward - expected).abs().max() <= tolerance * (1 + expected.abs().max())


def test_the_input_is_unchanged_and_the_last_decay_has_no_effect():
    x, decay = th.ones(1, 5, 1), th.full((1, 5, 1), 0.5)
    got = reverse_scan(x, decay)
    assert th.equal(x, th.ones(1, 5, 1))
    assert th.equal(decay, th.full((1, 5, 1), 0.5))
    decay[:, -1] = 100.0
    assert th.equal(reverse_scan(x, decay), got)
    assert th.allclose(got.flatten(), th.tensor([1.9375, 1.875, 1.75, 1.5, 1.0]))


def test_scan_is_differentiable():
    generator = th.Generator().manual_seed(0)
    x = th.randn(1, 6, 2, generator=generator, dtype=th.float64, requires_grad=True)
    decay = th.rand(1, 6, 2, generator=generator, dtype=th.float64, requires_grad=True)
    assert th.autograd.gradcheck(reverse_scan, (x, decay))
