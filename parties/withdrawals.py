"""Telling partners who has withdrawn, and honouring what they tell: `compliance.withdrawal` between
two nodes.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from compliance import withdrawal
from compliance.errors import WithdrawalRefused
from compliance.note import VerifierKey
from compliance.proof import Proof
from compliance.signing import Envelope
from compliance.withdrawal import Acknowledgement, Notice, Presence
from compliance.witness import cosigned_by_all
from parties import results, runs, witnessing
from parties.errors import Busy, UnknownRun, WitnessMissing
from parties.identity import Identity
from parties.node import Node
from parties.reading import read
from parties.wire import PeerClient


def announce(
    node: Node, conn: Connection, persons: Sequence[int], *, erasing: bool = False
) -> tuple[list[Presence], list[Notice]]:
    """In the transaction of what ends people's consents: the runs they were in, and what partners
    are to be told. The serving node delivers it.

    persons: row ids of the vault. Raises as `withdrawal.presences`.
    """
    name, now = node.config.name, node.now()
    found = withdrawal.presences(
        conn,
        node.log,
        node.vault_keys,
        persons,
        institution=name,
        now=now,
        erasing=erasing,
    )
    key = node.signing_key
    return found, withdrawal.announce(conn, node.log, key, found, institution=name, time=now)


def deliver(node: Node, client: PeerClient, peer: Identity, notice: Notice) -> None:
    """Sends one notice and enters what acknowledges it. Raises E415, E612, E613."""
    # By the key that the partner knows now: it may be another than when the notice was made.
    signed = replace(notice.envelope, signatures={}).sign(node.signing_key)
    answer = client.withdraw_rows(signed.to_json())
    with node.writing() as conn:
        withdrawal.acknowledge(
            conn,
            node.log,
            notice,
            answer,
            key=peer.signing_key,
            their_log=VerifierKey.parse(peer.log_key),
            witness=node.witness_key,
            time=node.now(),
        )
        node.log.checkpoint(conn)


def honour(node: Node, peer: Identity, envelope: bytes) -> Acknowledgement:
    """Deletes what a partner's notice names, enters it, and proves that it is entered.

    The same again is answered the same, with a proof as of now. Raises WithdrawalRefused (E414),
    InvalidSignature (E503), Busy (E621) while one of the runs is under way, WitnessMissing (E651)
    while the partner has not cosigned.
    """
    notice = withdrawal.check(
        Envelope.from_json(envelope),
        peer.signing_key,
        sender=peer.name,
        recipient=node.config.name,
    )
    if not node.honouring.acquire(blocking=False):
        raise _busy(node, "honours another notice")
    try:
        with node.reading() as conn:
            known = withdrawal.held(conn, notice) is not None
        if not known:
            _forget(node, peer, notice)
        with node.writing() as conn:
            entry, signed = withdrawal.honour(
                conn, node.log, notice, node.signing_key, time=node.now()
            )
            node.log.checkpoint(conn)
    finally:
        node.honouring.release()
    return _proved(node, peer, entry, signed)


def _forget(node: Node, peer: Identity, notice: Notice) -> None:
    """Takes the rows out of what the runs have left in clear: results, and last scores."""
    for run in notice.rows:
        _check_run(node, peer, notice, run)
    watched = list((node.home.path / "watch").glob(f"{notice.agreement}.*"))
    for run, tokens in notice.rows.items():
        results.forget(node.home.run_folder(run), watched, tokens)
        # It names nobody, but counts whom it no longer should; `concordat report` makes it anew.
        node.home.report_file(run).unlink(missing_ok=True)


def _check_run(node: Node, peer: Identity, notice: Notice, run: str) -> None:
    try:
        found = node.find_run(run)
    except UnknownRun:
        found = {}
    if (found.get("peer"), found.get("agreement")) != (peer.name, notice.agreement):
        raise WithdrawalRefused(
            f"A withdrawal notice is refused: run {run} is none with {peer.name} under "
            f"{notice.agreement} here.",
            "Ask the partner which runs it means; a store that was restored may lack them.",
        )
    if found["state"] == runs.RUNNING:
        raise _busy(node, "is in a run that a notice names")


def _busy(node: Node, why: str) -> Busy:
    return Busy(f"{node.config.name}'s node {why}.", "It is sent again by itself, a little later.")


def _proved(node: Node, peer: Identity, entry: int, signed: bytes) -> Acknowledgement:
    """With proof of the entry under a checkpoint that the partner has cosigned."""
    witness = VerifierKey.parse(peer.witness_key)
    with node.reading() as conn:
        checkpoint = cosigned_by_all(conn, node.log, [witness], entry)
    if checkpoint is None:
        witnessing.ask(node, peer)
    with node.reading() as conn:
        checkpoint = cosigned_by_all(conn, node.log, [witness], entry)
        if checkpoint is None:
            raise WitnessMissing(
                f"{peer.name} has not cosigned the log that says its notice was honoured.",
                "It is sent again by itself, a little later; it is honoured already.",
            )
        hashes = node.log.inclusion_proof(conn, entry, checkpoint.size)
        (stored,) = node.log.entries(conn, entry, entry + 1)
    proof = Proof(entry, tuple(hashes), checkpoint)
    return Acknowledgement(signed, stored.leaf, proof.encode())


def every(node: Node) -> list[dict[str, Any]]:
    """What was sent and received, oldest first: see `withdrawal.every`. Raises E32x."""
    read(node, "consent.withdrawals")
    with node.reading() as conn:
        return withdrawal.every(conn, now=node.now())
