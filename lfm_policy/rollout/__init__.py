"""Rollouts: protocols between policies and environments, the receding-horizon runner, and its report."""
