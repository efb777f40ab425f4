"""Students of trained chains."""
