"""Rotation of the keys that a node signs with: agreements and receipts, its log, its cosignatures.

The old key introduces the new one, in an entry of this node's log and to every partner over the
pinned connection; a partner that cannot be reached is told before the next thing asked of it.
"""

from sqlalchemy import Connection, select

from compliance import succession
from compliance.canonical import parse
from compliance.log import log_entries
from compliance.signing import SigningKey
from compliance.succession import OWN, PEERS, TOLD, Kind, Succession
from parties import peers, runs
from parties.errors import Busy, PeerRefused, PeerUnreachable
from parties.identity import Identity
from parties.node import PAIRED, Node


def rotate(node: Node, kind: Kind) -> int:
    """Replaces a key; the index of the entry that introduces the new one.

    Raises Busy while a run is under way, KeyFileError.
    """
    node.settle_keys()
    with node.writing() as conn:
        if runs.under_way(conn):
            raise Busy(
                f"{node.config.name}'s node is in a run, whose receipts name its keys.",
                "Wait for it to end; `concordat job list` shows it there.",
            )
        fresh = SigningKey.generate()
        fresh.save(node.successor(kind))
        old = {"signing": node.signing_key, "log": node.log.key}.get(kind, node.witness_signing_key)
        made = Succession.make(node.config.name, kind, old, fresh, node.now())
        following = node.identity.followed(kind, fresh.public)
        body = made.entry() | {"fingerprint": following.fingerprint}
        entry = node.log.append(conn, OWN, body, time=node.now())
        node.log.checkpoint(conn, fresh if kind == "log" else None)
    node.settle_keys()
    return entry


def announce(node: Node, peer: Identity) -> None:
    """Tells a partner of every key that is new to it. Raises PeerUnreachable, PeerRefused."""
    with node.reading() as conn:
        waiting = _waiting(node, conn, peer.name)
    if not waiting:
        return
    with node.dial(peer) as client:
        for one in waiting:
            client.announce_key(one.data)
            with node.writing() as conn:
                body = {"peer": peer.name, "kind": one.kind, "new": one.new.hex()}
                node.log.append(conn, TOLD, body, time=node.now())
                node.log.checkpoint(conn)


def announce_to_all(node: Node) -> list[str]:
    """Tells every partner; the names of those that could not be told."""
    missed = []
    for peer in node.peers():
        try:
            announce(node, peer)
        except (PeerUnreachable, PeerRefused) as error:
            node.logger.warning("%s was not told of the new key: %s", peer.name, error.message)
            missed.append(peer.name)
    return missed


def receive(node: Node, peer: Identity, data: bytes) -> Identity:
    """Takes in a partner's new key; the identity that is pinned now. Raises SuccessionRefused."""
    found = Succession.parse(data)
    if found.party != peer.name:
        raise succession.refused("it speaks of another party")
    with node.writing() as conn:
        pinned = peers.find_peer(conn, peer.name)
        if pinned.key(found.kind) == found.new:
            return pinned  # told twice
        if pinned.key(found.kind) != found.old:
            raise succession.refused("it does not follow the key that is pinned")
        following = pinned.followed(found.kind, found.new)
        peers.follow(conn, following, node.identity)
        body = found.entry() | {"fingerprint": following.fingerprint}
        node.log.append(conn, PEERS, body, time=node.now())
        node.log.checkpoint(conn)
    return following


def _waiting(node: Node, conn: Connection, peer: str) -> list[Succession]:
    """The successions that a partner has not acknowledged, of those since it was paired."""
    own = [one for one in node.successions(conn) if one.type == OWN and one.succession]
    if not own:
        return []
    paired, told = 0, set()
    query = select(log_entries.c.index, log_entries.c.type, log_entries.c.leaf)
    query = query.where(log_entries.c.type.in_([PAIRED, TOLD])).order_by(log_entries.c.index)
    for index, type_, leaf in conn.execute(query):
        body = parse(leaf)
        if body["peer"] == peer and type_ == PAIRED:
            paired = index
        elif body["peer"] == peer:
            told.add((body["kind"], body["new"]))
    return [
        one.succession
        for one in own
        if one.succession
        and one.index > paired
        and (one.kind, one.succession.new.hex()) not in told
    ]
