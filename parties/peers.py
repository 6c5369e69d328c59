"""The partners this node is paired with, and the invitations it has out."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from sqlalchemy import Column, Connection, String, Table, insert, select, update

from compliance import succession
from compliance.errors import StoreDamaged
from compliance.store import metadata
from parties.errors import HandshakeRefused, InvitationError, UnknownPeer
from parties.identity import INVITATION, UNREADABLE, Identity, check_issued, refused, san_of

_peers = Table(
    "peers",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("identity", String, nullable=False),
    Column("paired_at", String, nullable=False),
)

_invitations = Table(
    "invitations",
    metadata,
    Column("serial", String(64), primary_key=True),
    Column("expires_at", String, nullable=False),
    Column("accepted_by", String(63)),
)


def all_peers(conn: Connection) -> list[Identity]:
    """By name. Raises StoreDamaged."""
    rows = conn.execute(select(_peers.c.name, _peers.c.identity).order_by(_peers.c.name))
    return [_read(*row) for row in rows]


def audit(
    conn: Connection, paired: Mapping[str, str]
) -> tuple[list[Identity], list[tuple[str, str]]]:
    """The partners that are still what was paired, and what is wrong with the others.

    paired: fingerprints by name, as the log has them.
    """
    sound, findings = [], []
    query = select(_peers.c.name, _peers.c.identity)
    rows = {row.name: row.identity for row in conn.execute(query)}
    for name, text in rows.items():
        try:
            identity = _read(name, text)
        except StoreDamaged as error:
            findings.append((f"partner {name}", error.numbered))
            continue
        if identity.fingerprint == paired.get(name):
            sound.append(identity)
        else:
            findings.append((f"partner {name}", "it is not whom the log says was paired"))
    gone = paired.keys() - rows.keys()
    findings += [(f"partner {name}", "it was paired and is missing") for name in sorted(gone)]
    return sound, findings


def _read(name: str, text: str) -> Identity:
    """The identity in a row of that name. Raises StoreDamaged."""
    try:
        identity = Identity.from_json(json.loads(text))
        if identity.name == name:
            return identity
    except (TypeError, ValueError, HandshakeRefused):
        pass
    raise StoreDamaged(
        f"What was pinned of the partner {name!r} was changed.",
        "Stop the node, keep the store as evidence and run `concordat audit verify`.",
    )


def find_peer(conn: Connection, name: str) -> Identity:
    """The pinned identity. Raises UnknownPeer, StoreDamaged."""
    text = conn.execute(select(_peers.c.identity).where(_peers.c.name == name)).scalar()
    if text is None:
        raise UnknownPeer(
            f"This node is not paired with {name!r}.",
            "Pair with it first: `concordat pair invite` there, `concordat pair accept` here.",
        )
    return _read(name, text)


def pin(conn: Connection, identity: Identity, own: Identity, now: datetime) -> bool:
    """Trust a partner from now on; whether it is new.

    Raises InvitationError if its name is taken, or a key: two institutions with one key could not
    be told apart, and either could deny what it has signed.
    """
    if identity.name == own.name:
        raise InvitationError(
            f"Both nodes are called {own.name!r}.",
            "A node cannot pair with itself or a namesake; make one with another --name.",
        )
    for other in (own, *all_peers(conn)):
        if other.name != identity.name and other.public_keys & identity.public_keys:
            raise InvitationError(
                f"{identity.name} presents a key of {other.name}'s.",
                "Do not pair with it; ask the partner where it has that key from.",
            )
    known = conn.execute(select(_peers.c.identity).where(_peers.c.name == identity.name)).scalar()
    text = json.dumps(identity.to_json())
    if known is None:
        conn.execute(
            insert(_peers).values(
                name=identity.name, identity=text, paired_at=now.isoformat(timespec="seconds")
            )
        )
    elif known != text:
        raise InvitationError(
            f"This node is already paired with another {identity.name!r}.",
            "Find out which of the two is your partner; a pinned identity is never replaced.",
        )
    return known is None


def follow(conn: Connection, identity: Identity, own: Identity) -> None:
    """Trust a partner by another key from now on. Raises SuccessionRefused if the key is taken."""
    for other in (own, *all_peers(conn)):
        if other.name != identity.name and other.public_keys & identity.public_keys:
            raise succession.refused(f"it is a key of {other.name}'s")
    if len(identity.public_keys) < 3:
        raise succession.refused("it serves for something else already")
    text = json.dumps(identity.to_json())
    conn.execute(update(_peers).where(_peers.c.name == identity.name).values(identity=text))


def record_invitation(conn: Connection, serial: int, expires_at: datetime) -> None:
    conn.execute(
        insert(_invitations).values(
            serial=f"{serial:x}", expires_at=expires_at.isoformat(timespec="seconds")
        )
    )


def use_invitation(conn: Connection, serial: str, accepted_by: str) -> None:
    """Spend an invitation. Raises InvitationError if another node has used it."""
    row = conn.execute(
        select(_invitations.c.accepted_by).where(_invitations.c.serial == serial)
    ).one_or_none()
    if row is None or row.accepted_by not in (None, accepted_by):
        raise InvitationError(
            "This invitation has been used.",
            "Ask the partner for a new one, and to look at `concordat pair list` for strangers.",
        )
    conn.execute(
        update(_invitations).where(_invitations.c.serial == serial).values(accepted_by=accepted_by)
    )


@dataclass(frozen=True)
class Caller:
    """Who opened a connection: a paired partner, or someone holding an invitation."""

    peer: Identity | None = None
    invitation: str | None = None


def authenticate(conn: Connection, leaf_pem: bytes, own_authority_pem: str) -> Caller:
    """Who a client certificate speaks for. Raises HandshakeRefused, UnknownPeer."""
    try:
        leaf = x509.load_pem_x509_certificate(leaf_pem)
    except UNREADABLE as error:
        raise refused("its certificate cannot be read") from error
    name = san_of(leaf)
    if name == INVITATION:
        check_issued(leaf, own_authority_pem)
        return Caller(invitation=f"{leaf.serial_number:x}")
    peer = find_peer(conn, name)
    check_issued(leaf, peer.authority_pem)
    return Caller(peer=peer)
