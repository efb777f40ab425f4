"""The cheapest websocket client there is, for tools that send what no client sends."""

import socket
import struct

import msgpack

_HELLO = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def frame(payload: bytes, opcode: int = 2, fin: bool = True) -> bytes:
    """A frame whose mask is zero."""
    first, size = (0x80 if fin else 0) | opcode, len(payload)
    if size < 126:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size < 2**16:
        head = struct.pack("!BBH", first, 0xFE, size)
    else:
        head = struct.pack("!BBQ", first, 0xFF, size)
    return head + b"\0\0\0\0" + payload


def is_complete(data: bytes) -> bool:
    """Whether the first frame in `data` is there to its end."""
    length, start = data[1] & 0x7F, 6
    if length >= 126:
        start = 8 if length == 126 else 14
        length = int.from_bytes(data[2 : start - 4], "big")
    return len(data) >= start + length


class RawClient:
    """One connection that has had the server's greeting."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._buffer = b""
        self.socket.sendall(_HELLO)
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101"):
            self.close()
            raise ConnectionError(head.partition(b"\r\n")[0].decode())
        self.greeting = msgpack.unpackb(self.read()[1])
        """What the server says of itself."""

    def read(self) -> tuple[int, bytes]:
        """The next frame of the server that is no ping: opcode and payload. Pings are answered."""
        while True:
            opcode, payload = self._frame()
            if opcode != 9:
                return opcode, payload
            self.socket.sendall(frame(payload, opcode=10))

    def _frame(self) -> tuple[int, bytes]:
        size, start = self._need(2)[1], 2
        if size >= 126:
            start = 4 if size == 126 else 10
            size = int.from_bytes(self._need(start)[2:start], "big")
        opcode = self._buffer[0] & 15
        payload = self._need(start + size)[start : start + size]
        self._buffer = self._buffer[start + size :]
        return opcode, payload

    def ask(self, message: bytes) -> tuple[int, bytes]:
        """Send a binary frame, and read one."""
        self.socket.sendall(frame(message))
        return self.read()

    def close(self) -> None:
        """Leave without a word."""
        self.socket.close()

    def _need(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._more()
        return self._buffer

    def _more(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("closed")
        self._buffer += data
