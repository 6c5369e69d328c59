import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from conftest import make

from compliance.note import VerifierKey
from parties import pairing
from parties.errors import HandshakeRefused, InvitationError, PeerRefused, PeerUnreachable
from parties.identity import INVITATION_LIFETIME, Identity
from parties.node import Node
from parties.peers import pin


def test_both_sides_pin_what_the_other_is(paired: tuple[Node, Node]) -> None:
    bank, shop = paired
    assert bank.peers() == [shop.identity]
    assert shop.peers() == [bank.identity]


def test_an_invitation_is_good_once(paired: tuple[Node, Node], tmp_path: Path) -> None:
    bank, shop = paired
    invitation = tmp_path / "invitation"
    assert pairing.accept(shop, invitation, bank.identity.fingerprint) == bank.identity
    stranger = make(tmp_path, "stranger")
    with pytest.raises(PeerRefused, match="E610"):
        pairing.accept(stranger, invitation, bank.identity.fingerprint)
    assert bank.peers() == [shop.identity]
    assert stranger.peers() == []


def test_a_wrong_fingerprint_changes_nothing(bank: Node, shop: Node, tmp_path: Path) -> None:
    invitation = tmp_path / "invitation"
    pairing.invite(bank, invitation)
    with pytest.raises(InvitationError, match="fingerprint"):
        pairing.accept(shop, invitation, shop.identity.fingerprint)
    assert bank.peers() == shop.peers() == []


def test_a_fingerprint_is_read_as_people_write_it(bank: Node, shop: Node, tmp_path: Path) -> None:
    invitation = tmp_path / "invitation"
    pairing.invite(bank, invitation)
    digits = bank.identity.fingerprint.upper()
    said = "-".join(digits[i : i + 4] for i in range(0, 32, 4))
    assert pairing.accept(shop, invitation, f" {said} ") == bank.identity


@pytest.mark.parametrize("field", ["name", "address", "authority_pem", "signing_key", "log_key"])
def test_the_fingerprint_covers_the_whole_identity(
    bank: Node, shop: Node, tmp_path: Path, field: str
) -> None:
    invitation = tmp_path / "invitation"
    pairing.invite(bank, invitation)
    fields = json.loads(invitation.read_text())
    fields["inviter"][field] = shop.identity.to_json()[field]
    invitation.write_text(json.dumps(fields))
    with pytest.raises(InvitationError):
        pairing.accept(shop, invitation, bank.identity.fingerprint)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff\xfe", b'{"format": 1}', b"[" * 9999])
def test_what_is_no_invitation_is_said_to_be_none(
    shop: Node, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(InvitationError, match="no invitation"):
        pairing.accept(shop, path, "0" * 32)
    with pytest.raises(InvitationError, match="cannot be read"):
        pairing.accept(shop, tmp_path / "missing", "0" * 32)


def test_an_invitation_expires(bank: Node, shop: Node, tmp_path: Path) -> None:
    invitation = tmp_path / "invitation"
    pairing.invite(bank, invitation)
    shop.now = lambda: bank.now() + INVITATION_LIFETIME + timedelta(minutes=1)
    with pytest.raises(InvitationError, match="expired"):
        pairing.accept(shop, invitation, bank.identity.fingerprint)


def test_the_inviting_node_must_serve(shop: Node, tmp_path: Path) -> None:
    asleep = make(tmp_path, "asleep")
    pairing.invite(asleep, tmp_path / "invitation")
    with pytest.raises(PeerUnreachable):
        pairing.accept(shop, tmp_path / "invitation", asleep.identity.fingerprint)


def test_an_invitation_never_overwrites_a_file(bank: Node, tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("mine")
    with pytest.raises(InvitationError):
        pairing.invite(bank, path)
    assert path.read_text() == "mine"


def test_only_its_owner_reads_an_invitation(bank: Node, tmp_path: Path) -> None:
    pairing.invite(bank, tmp_path / "invitation")
    assert (tmp_path / "invitation").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("field", ["log_key", "witness_key"])
@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda key: str(replace(key, name="bank.concordat/log")), "another name"),
        (lambda key: str(replace(key, kind=5 - key.kind)), "another name"),
        (lambda key: str(key)[:-1], "malformed"),
        (lambda key: "", "malformed"),
    ],
)
def test_a_log_and_a_witness_are_called_after_their_node(
    shop: Node, field: str, change: Callable[[VerifierKey], str], why: str
) -> None:
    fields = shop.identity.to_json()
    fields[field] = change(VerifierKey.parse(fields[field]))
    with pytest.raises(HandshakeRefused, match=why):
        Identity.from_json(fields)


@pytest.mark.parametrize("field", ["signing_key", "log_key", "witness_key"])
def test_two_institutions_never_share_a_key(
    paired: tuple[Node, Node], tmp_path: Path, field: str
) -> None:
    bank, shop = paired
    stranger = make(tmp_path, "stranger")
    for owner in (bank, shop):
        if field == "signing_key":
            stolen = replace(stranger.identity, signing_key=owner.identity.signing_key)
        else:
            key = VerifierKey.parse(getattr(stranger.identity, field))
            key = replace(key, public=owner.identity.signing_key)
            stolen = replace(stranger.identity, **{field: str(key)})
        with bank.writing() as conn, pytest.raises(InvitationError, match=owner.config.name):
            pin(conn, stolen, bank.identity, bank.now())
    assert bank.peers() == [shop.identity]
