"""Two real nodes, in this process, on real ports."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from ready import make_ready

from federated.paillier import keys
from parties import pairing, server
from parties.config import Home
from parties.node import Node


def make(folder: Path, name: str, sector: str = "bank") -> Node:
    return Node.create(Home(folder / name), name, sector, None)


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[Node]:
    node = make(tmp_path, "bank")
    with server.serving(node):
        yield node


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Node]:
    node = make(tmp_path, "shop", "ecommerce")
    with server.serving(node):
        yield node


@pytest.fixture
def paired(bank: Node, shop: Node, tmp_path: Path) -> tuple[Node, Node]:
    invitation = tmp_path / "invitation"
    pairing.invite(bank, invitation)
    pairing.accept(shop, invitation, bank.identity.fingerprint)
    return bank, shop


@pytest.fixture(scope="session")
def paillier_key() -> bytes:
    """Made once: safe primes take their time."""
    return keys.dump(keys.generate(2048))


@pytest.fixture
def ready(bank: Node, shop: Node, paillier_key: bytes) -> tuple[Node, Node]:
    """Bank and shop, ready for jobs."""
    make_ready(bank, shop, paillier_key)
    return bank, shop


@pytest.fixture(scope="module")
def lasting(
    tmp_path_factory: pytest.TempPathFactory, paillier_key: bytes
) -> Iterator[tuple[Node, Node]]:
    """The same for all tests of a module: nothing one of them does may keep another's job."""
    folder = tmp_path_factory.mktemp("lasting")
    bank, shop = make(folder, "bank"), make(folder, "shop", "ecommerce")
    with server.serving(bank), server.serving(shop):
        make_ready(bank, shop, paillier_key)
        yield bank, shop
