"""Measurements of trained models: blocks, fidelity of students, Fréchet distances, latency."""
