"""Linear recurrences over time without a loop over time."""

import torch as th


def reverse_scan(x: th.Tensor, decay: th.Tensor) -> th.Tensor:
    r"""
    Solve y_t = x_t + decay_t · y_{t+1}, y_T = x_T, for all t in O(log T) passes.

    Each pass doubles the number of terms in every partial sum (Hillis and Steele, 1986). With decay_t = γ inside an
    episode and 0 at its last step, y is the discounted sum of the rest of the episode.

    :param x: (n_tasks, n_steps, n_envs, \*shape)
    :param decay: (n_tasks, n_steps, n_envs), of the precision of ``x``
    :return: y, shape as ``x``
    """
    decay = decay.reshape(*decay.shape, *[1] * (x.dim() - decay.dim()))
    n_steps, shift = x.shape[1], 1
    while shift < n_steps:
        ahead = decay[:, : n_steps - shift] * x[:, shift:]
        x = th.cat([x[:, :-shift] + ahead, x[:, -shift:]], dim=1)
        decay = decay[:, :-shift] * decay[:, shift:]  # over the next 2 · shift steps
        shift *= 2
    return x


def forward_scan(x: th.Tensor, decay: th.Tensor) -> th.Tensor:
    r"""
    Solve y_t = x_t + decay_t · y_{t-1}, y_1 = x_1, for all t in O(log T) passes.

    :param x: (n_tasks, n_steps, n_envs, \*shape)
    :param decay: (n_tasks, n_steps, n_envs), 0 at the first step of an episode
    :return: y, shape as ``x``
    """
    return reverse_scan(x.flip(1), decay.flip(1)).flip(1)
