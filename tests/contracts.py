"""Contracts of arms without poses, for tests."""

from lfm_policy.contract import ActionNumber, Contract, ObservationKey

JOINTS = Contract(
    suite="arm",
    suite_version="1",
    environment="reach",
    robots=("so100",),
    control_hz=30,
    space="joints",
    action_dim=3,
    actions=(
        ActionNumber(name="pan", unit="deg"),
        ActionNumber(name="lift", unit="deg"),
        ActionNumber(name="gripper", unit="%", gripper=True),
    ),
    observations=(
        ObservationKey(name="observation.environment_state", dim=4),
        ObservationKey(name="observation.state", dim=3),
    ),
    measured="observation.state",
)
"""Two joints and a gripper, measured in the columns 4 to 6 of an observation."""
