"""Students of solved tasks, bundles that are found by name; installed as `lfm_pretrained`."""

from pathlib import Path

FOLDER = Path(__file__).resolve().parent
"""Folder of the bundles."""
