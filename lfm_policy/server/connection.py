"""One websocket of a server, with what the library leaves open: a text before it closes for size, and no floods.

The library reads all frames that have arrived before anyone else has a turn; a quarter of a megabyte of empty pings
takes it half a second. So frames are counted first, by their heads, and a client that sends too many small ones is cut
off.
"""

import asyncio
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import PayloadTooBig
from websockets.frames import Frame, Opcode

from lfm_policy.server.admission import Admission, Place
from lfm_policy.server.limits import LimitError, Rate

_SMALL_BYTES = 512
"""Payload of a frame that costs more for being one than for its length."""
_LINGER_S = 2.0
"""Time for a client to read why it is cut off, and to leave [s]."""
_HEADERS_END = b"\r\n\r\n"


class RobotConnection(ServerConnection):
    """A connection that knows its place, and why it is cut off.

    Args:
        protocol, server, options: of the library.
        admission: keeps the places.
        small_hz: small frames that a client may send, pings and fragments included [1/s].
        advice: what to send to a client whose message is too long.
    """

    def __init__(
        self, protocol: Any, server: Any, *, admission: Admission, small_hz: float, advice: str, **options: Any
    ) -> None:
        super().__init__(protocol, server, **options)
        self._admission, self._advice = admission, advice
        self._small_hz, self._allowance = small_hz, Rate(small_hz, 1)
        self._frames = FrameCounter()
        self.place: Place | None = None
        """Taken in the opening handshake."""
        self.offence: str | None = None
        """Why the connection was cut off while receiving."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._admission.knock(self.transport, (self.remote_address or ("gone",))[0])

    def connection_lost(self, exc: Exception | None) -> None:
        self._admission.settle(self.transport)
        if self.place is not None:
            self._admission.leave(self.place)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count before the library reads."""
        try:
            self._allowance.take(self._frames.small(data, enough=round(self._small_hz)))
        except LimitError:
            self.offence = f"more than {self._small_hz:g} small frames per second"
            self.transport.abort()
        else:
            super().data_received(data)

    def send_data(self) -> None:
        """Send a text before the close frame of a message that is too long, for clients that show no reasons."""
        error = self.protocol.parser_exc
        if error is not None and self.offence is None and not isinstance(error, EOFError):
            self.offence = str(error)
            if isinstance(error, PayloadTooBig):
                self.offence = f"{error}: {self._advice}"
                self.transport.write(Frame(Opcode.TEXT, self.offence.encode()).serialize(mask=False))
            self.loop.call_later(_LINGER_S, self.transport.abort)
        super().send_data()


class FrameCounter:
    """Finds the heads of frames in what a client sends after its opening handshake, at little cost."""

    def __init__(self) -> None:
        self._open = False
        self._rest, self._skip = b"", 0

    def small(self, data: bytes, enough: int) -> int:
        """Count the small frames that begin in the next piece of the stream; counting stops above `enough`."""
        data = self._rest + data
        if not self._open:
            end = data.find(_HEADERS_END)
            if end < 0:
                self._rest = data[1 - len(_HEADERS_END) :]
                return 0
            self._open, self._skip = True, end + len(_HEADERS_END)
        position, count = self._skip, 0
        while position + 2 <= len(data) and count <= enough:
            second = data[position + 1]
            length, head = second & 0x7F, 6 if second & 0x80 else 2
            if length >= 126:
                width = 2 if length == 126 else 8
                if position + 2 + width > len(data):
                    break
                length = int.from_bytes(data[position + 2 : position + 2 + width], "big")
                head += width
            count += length < _SMALL_BYTES
            position += head + length
        self._rest, self._skip = data[position:], max(0, position - len(data))
        return count
