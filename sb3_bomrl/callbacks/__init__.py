"""Callbacks: adaptation curves while training, checkpoints, and lines of progress."""

from sb3_bomrl.callbacks.adaptation import AdaptationCallback
from sb3_bomrl.callbacks.checkpoint import ExactCheckpointCallback
from sb3_bomrl.callbacks.progress import ProgressLineCallback

__all__ = ["AdaptationCallback", "ExactCheckpointCallback", "ProgressLineCallback"]
