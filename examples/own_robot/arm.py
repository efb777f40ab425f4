"""A robot of one's own behind the `Robot` protocol: six servos, here simulated in real time."""

import time

import numpy as np

from lfm_policy.control.robot import Reading

LAG_S = 0.03
"""A servo's time constant."""
SECONDS = 3.0
"""Length of an episode."""


class Arm:
    """Position-controlled joints. Put your driver's calls where the comments are.

    Args:
        contract: of the policy; actions are joint positions, which the first observation measures.
    """

    def __init__(self, contract):
        self.contract, self.target = contract, np.array([0.5, -0.5])
        self._joints = self._asked = np.zeros(contract.action_dim)  # open the bus, torque on
        self._last, self._begun = time.monotonic(), None

    def reset(self, seed):
        """Begin an episode where the arm is; drive it home first if your task wants that."""
        self._begun = None
        return self.read()

    def read(self):
        """Read the joints; never wait for them."""
        now = time.monotonic()  # bus.read("Present_Position")
        part = 1 - np.exp((self._last - now) / LAG_S)
        self._joints, self._last = self._joints + part * (self._asked - self._joints), now
        row = self.contract.flatten({"observation.state": self._joints, "target": self.target})
        return Reading(row[None], over=self._begun is not None and now - self._begun > SECONDS)

    def send(self, action, due):
        """Command the joints and return at once."""
        self._begun = self._begun or time.monotonic()
        self.read()
        self._asked = np.array(action, float)  # bus.write("Goal_Position", action)

    def stop(self):
        """Stop where it is: the emergency stop was pulled, and nothing more is sent."""
        self._asked = self._joints  # bus.write("Goal_Position", bus.read("Present_Position"))

    def close(self):
        """Leave the arm where it is safe: torque off only if it cannot fall."""
