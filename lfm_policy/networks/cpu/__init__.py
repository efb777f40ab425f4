"""Why networks are fast on a CPU: compiled kernels with the values of torch's own operators."""
