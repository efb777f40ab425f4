"""Data: the contract, demonstration files, prepared stores, windows and normalisers."""
