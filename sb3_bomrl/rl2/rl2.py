"""RL²: a recurrent policy that adapts by remembering."""

import sys
from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.vec_env import VecEnv

from sb3_bomrl.checks import check_positive
from sb3_bomrl.rl2.trial_evaluation import as_trial_env, make_trial_vec_env

try:
    from sb3_contrib import RecurrentPPO
    from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
except ImportError as error:
    raise ImportError("RL2 needs sb3-contrib: run `pip install 'sb3-bomrl[contrib]'`") from error


class WholeSequences(RecurrentActorCriticPolicy):
    """
    Run the LSTM over whole sequences at once, instead of step by step, with the same numbers.

    In training, sb3-contrib cuts its sequences where trials start, so that only the first step of a sequence can start
    a trial: the state is reset there.
    """

    @staticmethod
    def _process_sequence(
        features: th.Tensor,
        lstm_states: tuple[th.Tensor, th.Tensor],
        episode_starts: th.Tensor,
        lstm: th.nn.LSTM,
    ) -> tuple[th.Tensor, th.Tensor]:
        n_seq = lstm_states[0].shape[1]
        starts = episode_starts.reshape(n_seq, -1)
        keeps = (1.0 - starts[:, 0]).view(1, n_seq, 1)
        hidden, cell = (keeps * state for state in lstm_states)
        later = th.cat([th.zeros_like(starts[:, :1]), starts[:, 1:]], 1).flatten()
        return RecurrentActorCriticPolicy._process_sequence(features, (hidden, cell), later, lstm)


class MlpLstmPolicy(WholeSequences):
    """sb3-contrib's policy of that name, see :class:`WholeSequences`."""


sys.modules.setdefault("sb3_bomrl.algorithms.rl2", sys.modules[__name__])  # where model files of 0.1 name the policy


class RL2(RecurrentPPO):
    """
    RL² (Duan et al., 2016, arXiv 1611.02779; Wang et al., 2016, arXiv 1611.05763): sb3-contrib's ``RecurrentPPO`` on
    trials of several episodes of one task, see :class:`~sb3_bomrl.rl2.trial_wrapper.TrialWrapper`.

    It adapts by playing: only the hidden state changes, which it keeps over the episodes of a trial. Score it with
    :func:`~sb3_bomrl.evaluate_trials`. The parameters that are not listed here are ``RecurrentPPO``'s.

    :param policy: ``"MlpLstmPolicy"``, or a class; the observation of a trial is a vector in any case
    :param env: id of a registered environment with tasks, of which ``n_envs`` are made; an environment with tasks,
        which is wrapped; or a VecEnv of ``TrialWrapper`` environments
    :param n_steps: steps per rollout and environment. Gradients flow through the hidden state within a rollout alone:
        take at least the length of a trial
    :param batch_size: steps per minibatch. Gradients do not cross its two ends, which lie anywhere in a trial: take the
        length of several trials
    :param episodes_per_trial: episodes of one task that make up a trial, 2 if not given; an environment that has trials
        says so itself
    :param n_envs: number of environments where ``env`` is an id
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MlpLstmPolicy": MlpLstmPolicy}

    def __init__(
        self,
        policy: str | type[RecurrentActorCriticPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 3e-4,
        n_steps: int = 400,
        batch_size: int | None = 400,
        n_epochs: int = 10,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        clip_range: float | Schedule = 0.2,
        clip_range_vf: float | Schedule | None = None,
        episodes_per_trial: int | None = None,
        n_envs: int = 20,
        normalize_advantage: bool = True,
        ent_coef: float = 0.0,
        vf_coef: float = 0.5,
        max_grad_norm: float = 0.5,
        use_sde: bool = False,
        sde_sample_freq: int = -1,
        target_kl: float | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        length = 2 if episodes_per_trial is None else episodes_per_trial
        check_positive("episodes_per_trial", length, integer=True)
        if isinstance(env, str):
            env = make_trial_vec_env(env, n_envs, length, seed)
        elif env is not None:
            env = as_trial_env(env, length)
            length = _episodes_per_trial(env, episodes_per_trial)
        self.episodes_per_trial = length
        super().__init__(
            policy,
            env,  # type: ignore[arg-type]
            learning_rate=learning_rate,
            n_steps=n_steps,
            batch_size=batch_size,
            n_epochs=n_epochs,
            gamma=gamma,
            gae_lambda=gae_lambda,
            clip_range=clip_range,
            clip_range_vf=clip_range_vf,
            normalize_advantage=normalize_advantage,
            ent_coef=ent_coef,
            vf_coef=vf_coef,
            max_grad_norm=max_grad_norm,
            use_sde=use_sde,
            sde_sample_freq=sde_sample_freq,
            target_kl=target_kl,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=_init_setup_model,
        )


def _episodes_per_trial(env: VecEnv, asked: int | None) -> int:
    """Of all environments, which must agree with each other and with what was asked for."""
    found = sorted(set(map(int, env.get_attr("episodes_per_trial"))))
    if len(found) > 1 or asked not in (None, found[0]):
        raise ValueError(
            f"episodes_per_trial must be left out, or be that of all trials of env, "
            f"{', '.join(map(str, found))}; got {asked!r}"
        )
    return found[0]
