"""Navigation2D for thousands of environments at once."""

from gymnasium.envs.registration import EnvSpec

from sb3_bomrl.envs.navigation import Navigation2DEnv
from sb3_bomrl.vec_env.array import ArrayTaskVecEnv


class NavigationVecEnv(ArrayTaskVecEnv):
    """
    A batch of Navigation2D in vectorised NumPy, equal to as many single environments.

    :param n_envs: number of environments
    :param goal_half_width: goals are uniform in the square [-half_width, half_width]²
    :param horizon: steps per episode
    :param spec: Gymnasium's specification
    """

    def __init__(
        self,
        n_envs: int,
        goal_half_width: float = 0.5,
        horizon: int = 100,
        spec: EnvSpec | None = None,
    ) -> None:
        env = Navigation2DEnv(goal_half_width, horizon)
        env.spec = spec
        super().__init__(env, n_envs)
