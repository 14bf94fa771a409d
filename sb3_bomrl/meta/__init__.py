"""Lower and upper level: adaptation, meta-gradients, evaluation."""
