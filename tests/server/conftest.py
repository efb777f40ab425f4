"""A server that the tests of a module share."""

from collections.abc import Iterator

import pytest

from lfm_policy.server.server import PolicyServer
from tests.server.served import served


@pytest.fixture(scope="module")
def server() -> Iterator[PolicyServer]:
    with served() as running:
        yield running
