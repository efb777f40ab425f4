"""Policies: from observations to executable actions.

The conversions of actions need numpy only, so this package imports the torch policy on first use.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lfm_policy.policy.policy import LFMPolicy, PolicySpec

__all__ = ["LFMPolicy", "PolicySpec"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from lfm_policy.policy import policy

        return getattr(policy, name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
