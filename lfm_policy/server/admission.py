"""Who may come in, and who gives way: places for clients, shared among addresses, that idle strangers cannot hold.

A client that has never asked for anything is a stranger; one that has is a robot. Robots keep their places however
quiet they are, as long as they answer pings. When all places are taken, a newcomer gets that of the stranger who has
waited longest, or else of the robot that has been silent longest, for `idle_s` or more. An address that has its share
makes room among its own.
"""

import ipaddress
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from lfm_policy.server.crowd import Crowd
from lfm_policy.server.limits import LimitError

_STRANGER_S = 2.0
"""Time that every newcomer has for its first request before its place may be given away [s]."""
MOST_PENDING = 256
"""Connections that have not finished their opening handshake."""


@runtime_checkable
class Transport(Hashable, Protocol):
    """What is known of a connection before its handshake."""

    def abort(self) -> None:
        """End it at once."""
        ...


@dataclass(eq=False)
class Place:
    """One client's place."""

    address: str
    since: float
    asked: float | None = None
    """When its last request came; None: never."""
    busy: bool = False
    """A request is under way."""
    give_up: Callable[[str], None] = field(default=lambda reason: None)
    """Closes its connection with a text."""


class Admission:
    """The places of one server.

    Args:
        places: clients at once.
        per_address: of them from one address.
        idle_s: silence after which a robot's place may be given to another [s].
        clock: seconds that never go back.
    """

    def __init__(
        self, places: int, per_address: int, idle_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._places, self._per_address, self._idle_s, self._clock = places, per_address, idle_s, clock
        self._taken: dict[Place, None] = {}
        self._pending: Crowd[Transport] = Crowd(MOST_PENDING)

    def knock(self, transport: Transport, host: str) -> None:
        """Note a connection whose handshake begins; of too many, one of the address that has the most is ended."""
        gives_way = self._pending.add(transport, address_of(host))
        if gives_way is not None:
            gives_way.abort()

    def settle(self, transport: Transport) -> None:
        """Note that the handshake is over, whatever came of it."""
        self._pending.remove(transport)

    def turn_away(self) -> None:
        """End all handshakes that are under way."""
        for transport in self._pending:
            transport.abort()

    def enter(self, host: str) -> Place:
        """Take a place, from another client if need be.

        Raises:
            LimitError: there is none to be had.
        """
        address = address_of(host)
        now = self._clock()
        own = [place for place in self._taken if place.address == address]
        if len(own) >= self._per_address:
            self._make_room(own, now, f"{self._per_address} clients from your address")
        elif len(self._taken) >= self._places:
            self._make_room(list(self._taken), now, f"its {self._places} clients")
        place = Place(address, now)
        self._taken[place] = None
        return place

    def leave(self, place: Place) -> None:
        """Give a place back; nothing happens when it has been given away."""
        self._taken.pop(place, None)

    def asked(self, place: Place) -> None:
        """Note that a client has asked for something it may ask for."""
        place.asked = self._clock()

    def _make_room(self, among: list[Place], now: float, what: str) -> None:
        strangers = [(place.since, place) for place in among if place.asked is None]
        waiting = [row for row in strangers if now - row[0] >= _STRANGER_S]
        robots = [(place.asked, place) for place in among if place.asked is not None and not place.busy]
        silent = [row for row in robots if now - row[0] >= self._idle_s]
        candidates = waiting or silent
        if not candidates:
            raise LimitError(f"this server has {what}: try again later")
        since, place = min(candidates, key=lambda row: row[0])
        self.leave(place)
        place.give_up(f"your place was given to another client after {now - since:.0f} s without a request")


def address_of(host: str) -> str:
    """Return what counts as one address: of IPv6 the network of 64 bits that one customer has."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address) and not address.is_loopback:
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
