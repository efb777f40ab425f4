"""Training: the optimiser's loop, the moving average, checkpoints and logs."""
