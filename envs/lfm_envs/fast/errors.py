"""What compiled code refuses."""

from lfm_policy.errors import ConfigError


class NotCompiledError(ConfigError):
    """The compiled simulation does not know such an arm or gripper."""
