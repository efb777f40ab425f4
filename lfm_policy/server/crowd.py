"""Those who wait at a server, by address: of too many, one of the address that has the most gives way."""

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

Waiting = TypeVar("Waiting", bound=Hashable)


class Crowd(Generic[Waiting]):
    """Keeps who waits, in the order of arrival, address by address.

    Args:
        most: how many may wait.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._address: dict[Waiting, str] = {}
        self._of: dict[str, dict[Waiting, None]] = {}

    def __len__(self) -> int:
        return len(self._address)

    def __iter__(self) -> Iterator[Waiting]:
        return iter(list(self._address))

    def add(self, one: Waiting, address: str) -> Waiting | None:
        """Let one wait more; return who has to give way for it: the oldest of the address that has the most."""
        self._address[one] = address
        self._of.setdefault(address, {})[one] = None
        if len(self) <= self._most:
            return None
        oldest = next(iter(max(self._of.values(), key=len)))
        self.remove(oldest)
        return oldest

    def remove(self, one: Waiting) -> bool:
        """Forget one; return whether it waited."""
        address = self._address.pop(one, None)
        if address is None:
            return False
        del self._of[address][one]
        if not self._of[address]:
            del self._of[address]
        return True

    def next(self) -> Waiting:
        """Take out whose turn it is: the oldest of one address, then of the next.

        Raises:
            StopIteration: nobody waits.
        """
        address, those = next(iter(self._of.items()))
        one = next(iter(those))
        self._of[address] = self._of.pop(address)
        self.remove(one)
        return one
