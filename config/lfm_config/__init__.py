"""Presets: YAML files that Hydra composes; installed as `lfm_config`."""

from pathlib import Path

PRESETS = Path(__file__).resolve().parent
"""Folder of the files."""
