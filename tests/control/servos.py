"""Feetech servos at the other end of a pseudo-terminal: real bytes for LeRobot's own bus, a motor for each number."""

import os
import pty
import select
import threading
import time
import tty

BROADCAST = 0xFE
PING, READ, WRITE, SYNC_READ, SYNC_WRITE = 0x01, 0x02, 0x03, 0x82, 0x83
MODEL, LOWEST, HIGHEST, OFFSET, TORQUE, GOAL, PRESENT = 3, 9, 11, 31, 40, 42, 56
"""Registers of an STS3215."""
LAG_S = 0.03
"""Time constant of a motor."""


class Servo:
    """The registers of one STS3215, and a shaft that follows its goal while torque is on."""

    def __init__(self, position: int = 2048) -> None:
        self.registers = bytearray(128)
        self.registers[0], self.registers[1] = 3, 10
        for register, value in ((MODEL, 777), (LOWEST, 0), (HIGHEST, 4095), (GOAL, position), (PRESENT, position)):
            self.put(register, value)
        self._shaft, self._moved = float(position), time.monotonic()

    def put(self, register: int, value: int) -> None:
        self.registers[register : register + 2] = value.to_bytes(2, "little")

    def get(self, register: int) -> int:
        return int.from_bytes(self.registers[register : register + 2], "little")

    def turn(self) -> None:
        """Let the time pass that has passed."""
        now = time.monotonic()
        if self.registers[TORQUE]:
            self._shaft += (self.get(GOAL) - self._shaft) * min(1.0, (now - self._moved) / LAG_S)
        self._moved = now
        self.put(PRESENT, round(self._shaft))


class Servos:
    """A bus of servos 1 … n. Use it as a context manager; `port` is what LeRobot opens."""

    def __init__(self, count: int = 6) -> None:
        self.servos = {number: Servo() for number in range(1, count + 1)}
        self.goals: list[dict[int, int]] = []
        """What sync writes asked for, by servo."""
        self.silent = False
        self._ours, self._theirs = pty.openpty()
        tty.setraw(self._theirs)
        self.port = os.ttyname(self._theirs)
        self._ended, self._end = os.pipe()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> "Servos":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        os.write(self._end, b".")
        self._thread.join()
        for descriptor in (self._ours, self._theirs, self._ended, self._end):
            os.close(descriptor)

    def _serve(self) -> None:
        received = bytearray()
        while True:
            ready, _, _ = select.select([self._ours, self._ended], [], [])
            if self._ended in ready:
                return
            received += os.read(self._ours, 4096)
            while (start := received.find(b"\xff\xff")) >= 0 and len(received) >= start + 4:
                end = start + 4 + received[start + 3]
                if len(received) < end:
                    break
                packet = bytes(received[start + 2 : end - 1])
                del received[:end]
                if not self.silent:
                    self._obey(packet[0], packet[2], packet[3:])

    def _obey(self, number: int, instruction: int, given: bytes) -> None:
        if instruction == SYNC_READ:
            for asked in given[2:]:
                self._answer(asked, self._read(asked, given[0], given[1]))
        elif instruction == SYNC_WRITE:
            register, width = given[0], given[1]
            goals = {}
            for at in range(2, len(given), width + 1):
                self._write(given[at], register, given[at + 1 : at + 1 + width])
                goals[given[at]] = int.from_bytes(given[at + 1 : at + 1 + width], "little")
            if register == GOAL:
                self.goals.append(goals)
        elif number in self.servos:
            if instruction == WRITE:
                self._write(number, given[0], given[1:])
            self._answer(number, self._read(number, given[0], given[1]) if instruction == READ else b"")

    def _read(self, number: int, register: int, width: int) -> bytes:
        self.servos[number].turn()
        return bytes(self.servos[number].registers[register : register + width])

    def _write(self, number: int, register: int, values: bytes) -> None:
        self.servos[number].turn()
        self.servos[number].registers[register : register + len(values)] = values

    def _answer(self, number: int, values: bytes) -> None:
        body = bytes([number, len(values) + 2, 0]) + values
        os.write(self._ours, b"\xff\xff" + body + bytes([~sum(body) & 0xFF]))
