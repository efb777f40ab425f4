"""Local Flow Matching policies in LeRobot: `lerobot-train --policy.type=lfm`.

LeRobot imports this package by itself wherever it is installed. The model is lfm_policy's own.
"""

from lerobot_policy_lfm.versions import require_versions

require_versions()

from lerobot_policy_lfm.configuration_lfm import LFMConfig  # noqa: E402 (a version that does not fit says so first)

__all__ = ["LFMConfig"]
