"""Rollouts: worker processes, the receding-horizon runner, and its report."""
