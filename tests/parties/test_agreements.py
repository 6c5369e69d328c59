"""Agreements between two nodes that serve."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ready import AGREEMENT

from compliance.errors import AgreementAmbiguous, AgreementUnsigned
from compliance.log import tree_size
from parties import agreements, courier, pairing, server
from parties.config import Home
from parties.errors import NotDelivered
from parties.node import Node


def document(folder: Path, version: int) -> Path:
    path = folder / f"agreement-{version}.yaml"
    path.write_text(AGREEMENT.format(version=version, partner_learns="size"))
    return path


def test_both_have_it_once_both_have_signed(paired: tuple[Node, Node], tmp_path: Path) -> None:
    bank, shop = paired
    proposed = agreements.propose(bank, document(tmp_path, 1))
    for node in paired:
        with pytest.raises(AgreementUnsigned, match="of shop is missing"):
            agreements.in_force(node, "offers")
    again = agreements.sign(bank, "offers")
    assert agreements.unsigned(bank, again) == ["shop"]
    signed = agreements.sign(shop, "offers")
    assert agreements.unsigned(shop, signed) == []
    assert agreements.in_force(bank, "offers") == agreements.in_force(shop, "offers") == proposed


def test_nobody_signs_a_version_that_came_while_they_read(
    paired: tuple[Node, Node], tmp_path: Path
) -> None:
    bank, shop = paired
    agreements.propose(bank, document(tmp_path, 1))
    read = agreements.find(shop, "offers").agreement
    agreements.propose(bank, document(tmp_path, 2))
    with pytest.raises(AgreementAmbiguous):
        agreements.sign(shop, "offers")
    agreements.sign(shop, "offers", read.version)
    assert agreements.in_force(bank, "offers").version == 1
    agreements.sign(shop, "offers", 2)
    assert agreements.in_force(bank, "offers").version == 2


def test_who_signs_has_a_name_even_without_one(
    paired: tuple[Node, Node], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank, _ = paired
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 4_000_000_000)
    agreements.propose(Node.open(bank.home), document(tmp_path, 1))
    assert agreements.find(bank, "offers").proposed_by == "user 4000000000"


def test_a_signature_that_was_not_delivered_is_delivered_by_the_serving_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(courier, "FIRST_SECONDS", 0.1)
    monkeypatch.setattr(courier, "MOST_SECONDS", 0.4)
    bank, shop = (
        Node.create(Home(tmp_path / name), name, "bank", None) for name in ("bank", "shop")
    )
    with server.serving(bank), server.serving(shop):
        invitation = tmp_path / "invitation"
        pairing.invite(bank, invitation)
        pairing.accept(shop, invitation, bank.identity.fingerprint)
    with server.serving(bank):
        with pytest.raises(NotDelivered, match="has not been told") as error:
            agreements.propose(bank, document(tmp_path, 1))
        assert "tells it by itself" in error.value.next_step
        time.sleep(0.3)
        with server.serving(shop):
            wait(lambda: [one.state for one in agreements.every(shop)] == ["offered"])
    with server.serving(shop):
        with pytest.raises(NotDelivered):
            agreements.sign(shop, "offers")
        assert agreements.unsigned(bank, agreements.find(bank, "offers")) == ["shop"]
        with server.serving(bank):
            wait(lambda: not agreements.unsigned(bank, agreements.find(bank, "offers")))
            sizes = [tree_size_of(node) for node in (bank, shop)]
            time.sleep(0.3)
            assert [tree_size_of(node) for node in (bank, shop)] == sizes
    assert agreements.in_force(bank, "offers") == agreements.in_force(shop, "offers")


def tree_size_of(node: Node) -> int:
    with node.reading() as conn:
        return tree_size(conn)


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_is_delivered_once_it_can_be(paired: tuple[Node, Node], tmp_path: Path) -> None:
    bank, shop = paired
    agreements.propose(bank, document(tmp_path, 1))
    agreements.propose(bank, document(tmp_path, 2))
    assert agreements.signed_here(bank) == [("offers", 1), ("offers", 2)]
    assert agreements.signed_here(shop) == []
    agreements.sign(shop, "offers", 2)
    assert agreements.signed_here(bank) == agreements.signed_here(shop) == [("offers", 2)]
    agreements.declare(bank, "offers", "terminated", "")
    assert agreements.signed_here(bank) == []
