"""Fixed statistics of ``VecNormalize`` during a meta-iteration."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import numpy as np
from stable_baselines3.common.vec_env import VecNormalize

from sb3_bomrl.types import map_observations


class FrozenNormalizer:
    """
    Keep a ``VecNormalize``'s statistics fixed from :meth:`freeze` to :meth:`commit` or :meth:`release`, and gather
    those of the data in between.

    All data of one meta-iteration must be normalised by the same statistics, so that the policy that acts is the
    function that is differentiated afterwards.

    :param vec_normalize: the wrapper, or ``None`` for no normalisation: then nothing happens
    """

    def __init__(self, vec_normalize: VecNormalize | None) -> None:
        self._wrapper = vec_normalize
        self._training = False
        self._is_frozen = False

    def freeze(self) -> None:
        """Stop updating the statistics in use; start updating copies of them."""
        if self._wrapper is None:
            return
        self.release()
        self._is_frozen = True
        self._training = self._wrapper.training
        self._wrapper.training = False
        self._obs_rms = deepcopy(getattr(self._wrapper, "obs_rms", None))
        self._ret_rms = deepcopy(self._wrapper.ret_rms)
        self._returns = np.zeros(self._wrapper.num_envs)

    def observe(self, dones: np.ndarray | None = None) -> None:
        """
        Count the observations, and after a step the rewards, that the wrapper has just seen.

        :param dones: (n_envs,) ends of episodes; ``None`` after a reset
        """
        if self._wrapper is None or not self._training:
            return
        if self._wrapper.norm_obs:
            map_observations(lambda rms, obs: rms.update(obs), self._obs_rms, self._wrapper.old_obs)
        if dones is None:
            self._returns[:] = 0.0
        else:
            self._returns = self._returns * self._wrapper.gamma + self._wrapper.old_reward
            self._ret_rms.update(self._returns)
            self._returns[dones] = 0.0

    def commit(self) -> None:
        """Put the gathered statistics in use and undo :meth:`freeze`; nothing happens unless frozen."""
        if self._wrapper is None or not self._is_frozen:
            return
        if self._training:
            if self._obs_rms is not None:
                self._wrapper.obs_rms = self._obs_rms
            self._wrapper.ret_rms = self._ret_rms
        self.release()

    @contextmanager
    def shown_unfrozen(self) -> Iterator[None]:
        """Show the wrapper as it is outside a meta-iteration, to callbacks that save it."""
        if self._wrapper is None or not self._is_frozen:
            yield
            return
        self._wrapper.training = self._training
        try:
            yield
        finally:
            self._wrapper.training = False

    def release(self) -> None:
        """Undo :meth:`freeze` and forget what was gathered; nothing happens unless frozen."""
        if self._wrapper is None or not self._is_frozen:
            return
        self._wrapper.training = self._training
        self._is_frozen = False
