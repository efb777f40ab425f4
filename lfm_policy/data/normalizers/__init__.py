"""Invertible maps that bring data to unit scale; each knows its inverse and its log-determinant."""
