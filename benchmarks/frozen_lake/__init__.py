"""Frozen Lake: exact BO-MRL, its baselines and its bounds."""
