"""What commands mean as motion: the positions they ask for, their jerk, and the command that asks for none."""

import numpy as np

from lfm_policy.contract import Contract


def command_positions(contract: Contract, actions: np.ndarray) -> np.ndarray:
    """Positions that actions (n, action_dim) ask for, per arm: float64 (n, arms, 3) [m].

    A contract without rotation has positions alone: (n, 1, action_dim). Displacements are summed up from 0.
    """
    actions = np.asarray(actions, np.float64)
    if contract.rotation == "none":
        points = actions[:, None, :]
    else:
        points = actions.reshape(len(actions), len(contract.controllers), -1)[..., :3]
    if contract.action_form == "absolute":
        return points
    scale = [[arm.delta_position_m] for arm in contract.controllers] or [[1.0]]
    return np.cumsum(points * np.array(scale), axis=0)


def gripper_commands(contract: Contract, actions: np.ndarray) -> np.ndarray:
    """Gripper commands of actions (n, action_dim), one an arm: (n, arms), -1 open, +1 closed; (n, 0) without one."""
    if contract.rotation == "none":
        return np.zeros((len(actions), 0))
    return np.asarray(actions).reshape(len(actions), len(contract.controllers), -1)[..., -1]


def hold(contract: Contract, last: np.ndarray) -> np.ndarray:
    """The action (action_dim,) that keeps a robot where the `last` one sent it, the gripper as it is."""
    if contract.action_form == "absolute":
        return last
    still = np.zeros_like(last)
    if contract.rotation != "none":
        width = len(last) // len(contract.controllers)
        still[width - 1 :: width] = last[width - 1 :: width]
    return still


def command_jerk(contract: Contract, actions: np.ndarray) -> np.ndarray:
    """Norm of the third difference of the commanded positions at the contract's rate, (n - 3, arms) [m/s³].

    Row i is over the actions i … i + 3; (0, arms) of fewer than four actions.
    """
    positions = command_positions(contract, actions)
    if len(positions) < 4:
        return np.zeros((0, positions.shape[1]))
    return np.linalg.norm(np.diff(positions, n=3, axis=0), axis=-1) * contract.control_hz**3


def seam_jerk(contract: Contract, actions: np.ndarray, seams: list[int]) -> tuple[float | None, float | None]:
    """Root mean square jerk of the commands at the seams between chunks, and elsewhere [m/s³].

    Args:
        contract: what the actions mean.
        actions: (n, action_dim), executed one after the other.
        seams: indices of the first action of each chunk; the episode's first is none.

    Returns:
        None for a part without any four actions in a row.
    """
    jerk = command_jerk(contract, actions)
    first = np.arange(len(jerk))
    straddles = np.zeros(len(jerk), bool)
    for seam in seams:
        if 0 < seam < len(actions):
            straddles |= (first < seam) & (seam <= first + 3)
    return _rms(jerk[straddles]), _rms(jerk[~straddles])


def _rms(values: np.ndarray) -> float | None:
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else None
