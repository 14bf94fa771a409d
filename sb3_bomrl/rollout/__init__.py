"""Data collection."""
