"""Two real nodes, in this process, on real ports."""

from collections.abc import Iterator
from pathlib import Path

import pytest

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
