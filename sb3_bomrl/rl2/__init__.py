"""RL²: trials of several episodes, and a recurrent policy that adapts by playing."""
