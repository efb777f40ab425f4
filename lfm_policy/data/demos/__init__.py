"""Demonstration files: reading, recording and downloading them."""
