"""Demonstrations rebuilt from what was written down of human ones: rounded actions, object poses, hand motion."""
