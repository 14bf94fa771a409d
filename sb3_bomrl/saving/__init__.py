"""Model files: saving, loading, checks, checkpoints."""
