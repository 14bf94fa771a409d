"""Callbacks: adaptation curves while training, and checkpoints."""

from sb3_bomrl.callbacks.adaptation import AdaptationCallback
from sb3_bomrl.callbacks.checkpoint import ExactCheckpointCallback

__all__ = ["AdaptationCallback", "ExactCheckpointCallback"]
