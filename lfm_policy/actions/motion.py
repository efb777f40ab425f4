"""What commands mean as motion: the positions they ask for, their jerk, and the command that asks for none."""

import numpy as np

from lfm_policy.actions.poses import ARM_WIDTH, decode_absolute, encode_absolute
from lfm_policy.contract import Contract


def command_positions(contract: Contract, actions: np.ndarray) -> np.ndarray:
    """Find the points that actions (n, action_dim) ask for: float64 (n, points, axes), in the contract's unit.

    Poses have a point in space [m] per arm, a position is one point, and of joints and plain vectors each number is one
    of its own. Grippers are none. Displacements are summed up from 0.
    """
    actions = np.asarray(actions, np.float64)
    if contract.poses:
        points = actions.reshape(len(actions), contract.arms, -1)[..., :3]
    else:
        numbers = np.delete(actions, contract.grippers, axis=1)
        points = numbers[:, None, :] if contract.space == "position" else numbers[:, :, None]
    if contract.action_form == "absolute":
        return points
    scale = [[arm.delta_position_m] for arm in contract.controllers] or [[1.0]]
    return np.cumsum(points * np.array(scale), axis=0)


def gripper_commands(contract: Contract, actions: np.ndarray) -> np.ndarray:
    """Find the gripper commands of actions (n, action_dim): (n, grippers); of poses -1 open, +1 closed."""
    return np.asarray(actions)[:, contract.grippers]


def hold(contract: Contract, last: np.ndarray) -> np.ndarray:
    """Make the action (action_dim,) that keeps a robot where the `last` one sent it, the grippers as they are."""
    if contract.action_form == "absolute":
        return last
    still = np.zeros_like(last)
    still[contract.grippers] = last[contract.grippers]
    return still


def rest_actions(contract: Contract, observations: np.ndarray) -> np.ndarray | None:
    """Make the actions that keep robots where observations (B, observation_dim) say they rest: (B, action_dim).

    Grippers of poses stay open. None where no observation tells.
    """
    columns = contract.columns
    if contract.action_form == "delta":
        return np.zeros((len(observations), contract.action_dim))
    if contract.measured is not None:
        return np.array(observations[:, columns[contract.measured]], np.float64)
    parts = [(f"robot{arm}_eef_pos", f"robot{arm}_eef_quat") for arm in range(contract.arms)]
    if contract.rotation != "rot6d_rows" or not all(set(names) <= set(columns) for names in parts):
        return None
    from scipy.spatial.transform import Rotation  # half a second, which asking for help should not wait for

    # robosuite observes the hand's orientation and commands the grip site's, a quarter turn about the hand's axis
    grip_from_hand, arms = Rotation.from_euler("z", -90, degrees=True), []
    for position, quaternion in parts:
        matrix = (Rotation.from_quat(_unit(observations[:, columns[quaternion]])) * grip_from_hand).as_matrix()
        arms.append(encode_absolute(observations[:, columns[position]], matrix, -np.ones((len(observations), 1))))
    return np.concatenate(arms, axis=-1)


def blend(contract: Contract, start: np.ndarray, end: np.ndarray, part: float) -> np.ndarray:
    """Make the action (action_dim,) that lies `part` of the way from `start` on, with the grippers of `end`."""
    if not contract.poses:
        mixed = start + part * (np.asarray(end, np.float64) - start)
        mixed[contract.grippers] = np.asarray(end)[contract.grippers]
        return mixed
    from scipy.spatial.transform import Rotation

    arms = []
    for ours, theirs in zip(start.reshape(-1, ARM_WIDTH), end.reshape(-1, ARM_WIDTH), strict=True):
        (position, matrix, _), (goal, goal_matrix, gripper) = decode_absolute(ours), decode_absolute(theirs)
        turn = Rotation.from_rotvec(part * Rotation.from_matrix(goal_matrix @ matrix.T).as_rotvec()).as_matrix()
        arms.append(encode_absolute(position + part * (goal - position), turn @ matrix, gripper))
    return np.concatenate(arms)


def _unit(quaternions: np.ndarray) -> np.ndarray:
    """Scale quaternions (B, 4) to length 1; zeros, which are none, become the identity."""
    length = np.linalg.norm(quaternions, axis=-1, keepdims=True)
    return np.where(length > 0, quaternions / np.maximum(length, 1e-12), [0.0, 0.0, 0.0, 1.0])


def command_jerk(contract: Contract, actions: np.ndarray) -> np.ndarray:
    """Measure the third difference of the commanded points at the contract's rate, (n - 3, points) [unit/s³].

    Row i is over the actions i … i + 3; (0, arms) of fewer than four actions.
    """
    positions = command_positions(contract, actions)
    if len(positions) < 4:
        return np.zeros((0, positions.shape[1]))
    return np.linalg.norm(np.diff(positions, n=3, axis=0), axis=-1) * contract.control_hz**3


def seam_jerk(contract: Contract, actions: np.ndarray, seams: list[int]) -> tuple[float | None, float | None]:
    """Measure the root mean square jerk of the commands at the seams between chunks, and elsewhere [unit/s³].

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
