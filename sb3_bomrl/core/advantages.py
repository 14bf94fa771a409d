"""Generalised advantages and baselines that are fitted in closed form, for all tasks at once."""

import torch as th

from sb3_bomrl.core.scan import reverse_scan

RIDGE = 1e-5
"""Weight ε of the ridge penalty in a least-squares fit, relative to the mean squared feature."""

EPSILON = 1e-8
"""Smallest standard deviation that counts in full, relative to the largest reward."""


def generalized_advantages(
    rewards: th.Tensor,
    values: th.Tensor,
    bootstrap_values: th.Tensor,
    episode_ends: th.Tensor,
    gamma: float,
    gae_lambda: float,
) -> th.Tensor:
    """
    Compute generalised advantages (Schulman et al., 2016, Eq. 16):

        A_t = Σ_{u≥t} (γλ)^{u−t} δ_u,    δ_t = r_t + γ V(s_{t+1}) − V(s_t),

    where the sum ends with the episode and V(s_{t+1}) = 0 if the episode terminated at t.

    :param rewards: (n_tasks, n_steps, n_envs)
    :param values: (n_tasks, n_steps, n_envs), V(s_t)
    :param bootstrap_values: (n_tasks, n_steps, n_envs), V(s_{t+1}) where an episode was cut off, 0 elsewhere
    :param episode_ends: (n_tasks, n_steps, n_envs) bool, last steps of episodes
    :param gamma: discount factor in [0, 1]
    :param gae_lambda: λ of GAE in [0, 1]; 1 gives returns minus values
    :return: (n_tasks, n_steps, n_envs)
    """
    following = th.cat([values[:, 1:], th.zeros_like(values[:, :1])], dim=1)
    next_values = th.where(episode_ends, bootstrap_values, following)
    deltas = rewards + gamma * next_values - values
    return reverse_scan(deltas, gamma * gae_lambda * (~episode_ends).to(deltas.dtype))


def baseline_features(observations: th.Tensor) -> th.Tensor:
    """
    Return the features of the linear baseline: the observation, its square and a constant.

    Unlike the features of Duan et al. (2016) they do not contain time: the value at a time limit is bootstrapped, and
    must not depend on the time left.

    :param observations: (..., obs_dim)
    :return: (..., 2 · obs_dim + 1), double precision
    """
    o = observations.double().clamp(-10.0, 10.0)
    return th.cat([o, o.square(), th.ones_like(o[..., :1])], dim=-1)


def ridge_matrix(features: th.Tensor) -> th.Tensor:
    """
    Compute Σ_t f_t f_tᵀ + εI, the matrix of a ridge regression, with ε from :data:`RIDGE`.

    :param features: f_t, (n_tasks, n_samples, n_features)
    :return: (n_tasks, n_features, n_features)
    """
    scale = features.square().sum(1).mean(1).clamp(min=1e-12)
    return features.mT @ features + th.diag_embed((RIDGE * scale)[:, None].expand(-1, features.shape[-1]))


def fit_linear_baseline(
    features: th.Tensor,
    final_features: th.Tensor,
    rewards: th.Tensor,
    episode_ends: th.Tensor,
    truncated: th.Tensor,
    mask: th.Tensor,
    gamma: float,
) -> th.Tensor:
    r"""
    Fit a linear value function V(s) = wᵀf(s) to the returns of each task, in closed form.

    If the episode of step t was cut off at s_T, n steps later, its target is R_t + γⁿ wᵀf(s_T), which depends on w.
    The fixed point solves (LSTD(1), Boyan, 2002)

        [Σ_t f_t (f_t − b_t)ᵀ + εI] w = Σ_t f_t R_t,    b_t = γⁿ f(s_T), 0 where the episode terminated,

    with ε from :data:`RIDGE`. Without cut-off episodes this is ridge regression on the returns.

    :param features: f_t, (n_tasks, n_steps, n_envs, n_features)
    :param final_features: f(s_T), (n_truncated, n_features), in the row-major order of ``truncated``
    :param rewards: (n_tasks, n_steps, n_envs)
    :param episode_ends: (n_tasks, n_steps, n_envs) bool
    :param truncated: (n_tasks, n_steps, n_envs) bool, the ends that were cut off
    :param mask: (n_tasks, n_steps, n_envs) bool, the steps that count
    :param gamma: discount factor in [0, 1]
    :return: w, (n_tasks, n_features), double precision
    """
    returns, discount, row = _episode_ends(rewards, episode_ends, truncated, gamma)
    f = (features * mask[..., None]).flatten(1, 2) if not mask.all() else features.flatten(1, 2)
    matrix = ridge_matrix(f)
    if len(final_features) > 0:
        # Σ_t f_t b_tᵀ, first summed over the steps that share an f(s_T), then over the cuts of a task
        shares = th.zeros_like(final_features).index_add_(
            0, row.flatten(), f.flatten(0, 1) * discount.to(f).flatten()[:, None]
        )
        owner = truncated.nonzero()[:, 0]
        matrix = matrix.index_add_(0, owner, shares[:, :, None] * final_features[:, None], alpha=-1)
    return th.linalg.solve(matrix, f.mT @ returns.flatten(1, 2)[..., None]).squeeze(-1)


def fit_value_table(
    states: th.Tensor,
    final_states: th.Tensor,
    rewards: th.Tensor,
    episode_ends: th.Tensor,
    truncated: th.Tensor,
    mask: th.Tensor,
    gamma: float,
    n_states: int,
) -> th.Tensor:
    r"""
    Fit a table of values: :func:`fit_linear_baseline` with one-hot features, from sums over the visits of each state.

    :param states: s_t, (n_tasks, n_steps, n_envs) int
    :param final_states: s_T, (n_truncated,) int, in the row-major order of ``truncated``
    :param rewards: (n_tasks, n_steps, n_envs)
    :param episode_ends: (n_tasks, n_steps, n_envs) bool
    :param truncated: (n_tasks, n_steps, n_envs) bool, the ends that were cut off
    :param mask: (n_tasks, n_steps, n_envs) bool, the steps that count
    :param gamma: discount factor in [0, 1]
    :param n_states: number of states
    :return: V(s), (n_tasks, n_states), double precision; about 0 for states that were not visited
    """
    returns, discount, row = _episode_ends(rewards, episode_ends, truncated, gamma)
    weights = mask.double().flatten(1)
    own = states.long().flatten(1)

    def total(values: th.Tensor, index: th.Tensor, size: int) -> th.Tensor:
        return values.new_zeros(len(values), size).scatter_add_(1, index, values)

    visits = total(weights, own, n_states)
    matrix = th.diag_embed(visits + (RIDGE * visits.mean(1)).clamp(min=1e-17)[:, None])
    if len(final_states) > 0:
        following = own * n_states + final_states.long()[row.flatten(1)]
        matrix = matrix - total(weights * discount.flatten(1), following, n_states**2).reshape(matrix.shape)
    return th.linalg.solve(matrix, total(weights * returns.flatten(1), own, n_states))


def _episode_ends(
    rewards: th.Tensor, episode_ends: th.Tensor, truncated: th.Tensor, gamma: float
) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
    """R_t, γⁿ (0 where the episode terminated) and the row of ``final_features`` that holds s_T, for every step."""
    goes_on = (~episode_ends).double()
    returns = reverse_scan(rewards.double(), gamma * goes_on)
    cut_off = truncated.double()
    discount = reverse_scan(gamma * cut_off, gamma * goes_on)
    number = (truncated.flatten().cumsum(0) - 1).clamp(min=0).reshape(truncated.shape)
    row = reverse_scan(cut_off * number, goes_on).long()
    return returns, discount, row


def centre(advantages: th.Tensor, mask: th.Tensor) -> th.Tensor:
    """
    Subtract from the advantages of each task their mean.

    :param advantages: (n_tasks, n_steps, n_envs)
    :param mask: (n_tasks, n_steps, n_envs) bool, the steps that count
    :return: (n_tasks, n_steps, n_envs), 0 outside the mask
    """
    count = mask.sum((1, 2), keepdim=True).clamp(min=1)
    return (advantages - (advantages * mask).sum((1, 2), keepdim=True) / count) * mask


def advantage_scale(
    advantages: th.Tensor, mask: th.Tensor, rewards: th.Tensor, shared_scale: bool = False
) -> th.Tensor:
    """
    Compute what advantages are divided by: their standard deviation plus :data:`EPSILON` times the largest reward.

    The second term has the rewards' unit, so that normalised advantages do not depend on it; what varies by rounding
    alone stays near 0.

    :param advantages: (n_tasks, n_steps, n_envs)
    :param mask: (n_tasks, n_steps, n_envs) bool, the steps that count
    :param rewards: (n_tasks, n_steps, n_envs)
    :param shared_scale: pool the tasks
    :return: (n_tasks, 1, 1), or a scalar where it is shared; infinite where nothing varies
    """
    centred, count = centre(advantages.double(), mask), mask.sum((1, 2), keepdim=True).clamp(min=1)
    variance = centred.square().sum((1, 2), keepdim=True) / count
    largest = (rewards.double() * mask).abs().amax((1, 2), keepdim=True)
    if shared_scale:
        variance, largest = variance.mean(), largest.max()
    scale = variance.sqrt() + EPSILON * largest
    return th.where(scale > 0, scale, th.inf)


def normalize(advantages: th.Tensor, mask: th.Tensor, rewards: th.Tensor, shared_scale: bool = False) -> th.Tensor:
    """
    Centre the advantages of each task, and scale them to unit standard deviation, whatever the rewards' unit.

    :param advantages: (n_tasks, n_steps, n_envs)
    :param mask: (n_tasks, n_steps, n_envs) bool, the steps that count
    :param rewards: (n_tasks, n_steps, n_envs), what the advantages were estimated from
    :param shared_scale: divide all tasks by one pooled standard deviation, which keeps the ratios between tasks
    :return: (n_tasks, n_steps, n_envs), 0 outside the mask and where the advantages do not vary
    """
    scale = advantage_scale(advantages, mask, rewards, shared_scale)
    return (centre(advantages.double(), mask) / scale).to(advantages.dtype)
