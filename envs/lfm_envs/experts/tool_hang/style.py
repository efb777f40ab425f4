"""How one ToolHang episode is performed, so that the demonstrations differ."""

from dataclasses import dataclass

import numpy as np

PRECISE = 0.02
"""Action noise that grasping, inserting and hanging can take: less than in the other tasks."""


@dataclass(frozen=True)
class Style:
    """Lengths in [m], angles in [rad]."""

    pace: float
    careful: float
    """Pace of the insertion and of the hanging."""
    tilt: float
    """Tilt of the grasp on the frame, against its upright's normal."""
    frame_offset: float
    """Offset of the grasp along the frame's grip."""
    frame_hover: float
    """Height of the approach above the frame."""
    high: float
    """How far above the stand's hole the tip is brought first."""
    over_frame: np.ndarray
    """Where the hand passes over the standing frame."""
    rest: np.ndarray
    """Where the hand turns downward between frame and tool."""
    tool_offset: float
    """Offset of the grasp along the tool's grip."""
    tool_hover: float
    """Height of the approach above the tool."""
    over: float
    """How far above the hook the tool's hole is brought first."""
    droop: float
    """How far the tool is tilted before it is let go."""
    hold: int
    """Steps for which success must last."""

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Style":
        return cls(
            pace=rng.uniform(0.7, 1.0),
            careful=rng.uniform(0.35, 0.5),
            tilt=np.deg2rad(rng.uniform(19, 25)),
            frame_offset=rng.uniform(-0.006, 0.006),
            frame_hover=rng.uniform(0.06, 0.1),
            high=rng.uniform(0.05, 0.08),
            over_frame=np.array([0.0, 0.08, 1.2]) + rng.uniform(-0.02, 0.02, 3),
            rest=np.array([0.03, -0.1, 1.1]) + rng.uniform(-0.02, 0.02, 3),
            tool_offset=rng.uniform(-0.008, 0.008),
            tool_hover=rng.uniform(0.06, 0.1),
            over=rng.uniform(0.03, 0.06),
            droop=np.deg2rad(rng.uniform(57, 60)),
            hold=int(rng.integers(7, 10)),
        )
