"""A softmax table as an SB3 policy."""

from typing import Any

from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import Schedule
from torch import nn


class TabularPolicy(ActorCriticPolicy):
    """
    A softmax table: π(a∣s) ∝ exp(table[s, a]), uniform at the start, with a table of values beside it.

    :param observation_space: ``Discrete``
    :param action_space: ``Discrete``
    :param lr_schedule: learning rate schedule
    :param kwargs: further arguments of :class:`~stable_baselines3.common.policies.ActorCriticPolicy`
    :raises ValueError: if either space is not ``Discrete``
    """

    def __init__(
        self, observation_space: spaces.Space, action_space: spaces.Space, lr_schedule: Schedule, **kwargs: Any
    ) -> None:
        for name, space in (("observation_space", observation_space), ("action_space", action_space)):
            if not isinstance(space, spaces.Discrete):
                raise ValueError(f"TabularPolicy needs a Discrete {name}, got {space}: use 'MlpPolicy'")
        assert isinstance(action_space, spaces.Discrete)
        self.n_actions = int(action_space.n)
        kwargs.setdefault("net_arch", [])
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        assert isinstance(self.action_space, spaces.Discrete)
        self.action_net = _zero_table(self.mlp_extractor.latent_dim_pi, int(self.action_space.n))
        self.value_net = _zero_table(self.mlp_extractor.latent_dim_vf, 1)
        self.optimizer = self.optimizer_class(  # type: ignore[call-arg]
            self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs
        )


def _zero_table(n_rows: int, n_columns: int) -> nn.Linear:
    table = nn.Linear(n_rows, n_columns, bias=False)
    nn.init.zeros_(table.weight)
    return table
