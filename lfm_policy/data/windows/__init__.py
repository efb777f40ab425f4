"""Prepared demonstrations: the zarr store, and windows of it in memory or on disk."""
