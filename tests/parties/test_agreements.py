"""Agreements between two nodes that serve."""

from pathlib import Path

import pytest
from ready import AGREEMENT

from compliance.errors import AgreementAmbiguous, AgreementUnsigned
from parties import agreements
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
