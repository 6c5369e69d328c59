"""The officer's commands: verify everything, list the log, compare two institutions' receipts."""

import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from sqlalchemy import Connection, select

from compliance import account, audit, receipt, succession
from compliance.audit import Verdict
from compliance.canonical import parse
from compliance.errors import LogRolledBack, NotCanonical, SplitView
from compliance.log import Entry, log_entries
from compliance.note import VerifierKey
from compliance.signing import Envelope
from compliance.succession import PEERS, history
from compliance.verify import Progress, silent
from parties import peers, people, witnessing
from parties.errors import JobError, NoReceipt
from parties.identity import Identity
from parties.node import CREATED, PAIRED, Node

_HIDDEN = {"type", "time", "nonce", "once"}
_MAX_RECEIPT = 8 << 20


def verify(
    node: Node, *, offline: bool = False, progress: Progress = silent
) -> tuple[Verdict, list[str]]:
    """Recompute the log and all that rests on it; the verdict, and which witnesses were not asked.

    Unless `offline`, each partner and each third witness is asked to cosign the latest checkpoint
    of a log that is in order here: it refuses if what it has seen of this log is not what is here
    now, which no look at the store alone can tell. progress: told of what is being checked.
    """
    people.read(node, "audit.verify")
    with node.reading() as conn:
        partners, strangers = peers.audit(conn, _paired(conn, node))
        verdict = audit.verify(
            conn,
            node.log.verifier,
            keys=node.keyring(conn, partners),
            vault=node.vault_keys,
            name=node.config.name,
            witnesses=[
                *_partners_witnesses(conn, node, partners),
                *(key for keys in witnessing.pinned(conn).values() for key in keys),
            ],
            partners=_partners_logs(conn, node, partners),
            progress=progress,
        )
        first = next(node.log.entries(conn), None)
    if first is None or _body(first).get("type") != CREATED:
        strangers.append(("entry 0", "the log does not begin with the making of this node"))
    for where, problem in strangers:
        verdict.report.add(where, problem)
    asks: list[tuple[str, VerifierKey, Callable[[], bool]]] = [
        (peer.name, VerifierKey.parse(peer.witness_key), partial(witnessing.ask, node, peer))
        for peer in partners
    ]
    asks += [
        (third.name, third.verifier, partial(witnessing.ask_third, node, third))
        for third in node.config.witnesses
    ]
    progress("witnesses", 0, 0)
    not_asked = [one[0] for one in asks if offline or not _asked(*one, verdict)]
    if verdict.ok:
        with node.reading() as conn:
            thirds = {name: keys[-1] for name, keys in witnessing.pinned(conn).items()}
            for where, problem in audit.uncosigned(conn, thirds, verdict.report.cosigned):
                verdict.report.add(where, problem)
    return verdict, not_asked


def _paired(conn: Connection, node: Node) -> dict[str, str]:
    """The fingerprint of each partner, by name, as the log has it."""
    query = select(log_entries).where(log_entries.c.type.in_([PAIRED, PEERS]))
    rows = (Entry(*row) for row in conn.execute(query.order_by(log_entries.c.index)))
    bodies = [(_body(entry), entry.type) for entry in rows]
    return {
        str(body.get("party" if type_ == PEERS else "peer")): str(body.get("fingerprint"))
        for body, type_ in bodies
        if body
    }


def _partners_witnesses(
    conn: Connection, node: Node, partners: Iterable[Identity]
) -> list[VerifierKey]:
    """The keys that partners cosign and have cosigned this log with."""
    entries, found = node.successions(conn), []
    for peer in partners:
        key = VerifierKey.parse(peer.witness_key)
        past, _ = history(entries, PEERS, peer.name, "witness", key.public)
        found += [key, *succession.witness_keys(key.name, past)]
    return found


def _partners_logs(conn: Connection, node: Node, partners: Iterable[Identity]) -> list[VerifierKey]:
    """The keys that partners sign and have signed their logs with."""
    entries, found = node.successions(conn), []
    for peer in partners:
        key = VerifierKey.parse(peer.log_key)
        past, _ = history(entries, PEERS, peer.name, "log", key.public)
        found += [key, *(one for one, _ in succession.log_keys(key.name, past))]
    return found


def _body(entry: Entry) -> dict[str, Any]:
    """What an entry says; nothing if it is damaged, which the verdict names."""
    try:
        body = parse(entry.leaf)
    except (NotCanonical, AttributeError):  # in a damaged store it may be a text
        return {}
    return body if isinstance(body, dict) else {}


def _asked(name: str, key: VerifierKey, ask: Callable[[], bool], verdict: Verdict) -> bool:
    """Ask a witness about a log that is in order here; whether it answered."""
    if not verdict.ok:
        return False
    try:
        cosigned = ask()
    except (LogRolledBack, SplitView) as found:
        verdict.report.add(f"witness {name}", found.numbered)
        return True
    if cosigned:
        verdict.report.cosigned[key.name] = verdict.report.size
    return cosigned


def print_log(node: Node, console: Console, *, as_json: bool) -> None:
    """Every entry, oldest first; as JSON, one a line: its index and what it says."""
    people.read(node, "audit.log")
    with node.reading() as conn:
        for entry in node.log.entries(conn):
            if as_json:
                print(json.dumps({"index": entry.index, "entry": _body(entry)}))
                continue
            body = {key: value for key, value in _body(entry).items() if key not in _HIDDEN}
            text = ", ".join(f"{key} {_short(value)}" for key, value in sorted(body.items()))
            console.print(f"{entry.index:>6}  {entry.time}  {entry.type:20} {escape(text)}")


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:12]}…"


def show_receipt(node: Node, run: str) -> tuple[dict[str, Any], list[str]]:
    """What both have signed about a run: as data, and in words, a line at a time.

    run: its id, or the first digits. Raises UnknownRun, NotInLog, ReceiptBroken, InvalidSignature.
    """
    found = node.find_run(run)
    people.read(node, "audit.receipt", run=found["id"])
    with node.reading() as conn:
        told = account.of_run(
            conn, node.log, found["id"], node.signing_keys(), witness_keys(conn, node)
        )
    told["state"] = found["state"]
    told["excluded"] = found["report"].get("gate", {}).get("excluded")
    return told, list(account.in_words(told, told["excluded"]))


def witness_keys(conn: Connection, node: Node) -> list[VerifierKey]:
    """The keys of all witnesses of this node's log: its partners, and third ones, past too."""
    partners = _partners_witnesses(conn, node, peers.all_peers(conn))
    return [*partners, *(key for keys in witnessing.pinned(conn).values() for key in keys)]


def compare(node: Node, path: Path) -> tuple[str, list[str]]:
    """As `compare_with`, with the receipt in a file. Raises JobError, too."""
    try:
        with path.open("rb") as file:
            return compare_with(node, file.read(_MAX_RECEIPT))
    except OSError as error:
        raise JobError(
            f"{path} cannot be read: {error.strerror}.",
            "Name the receipt.json that the partner sent.",
        ) from error


def compare_with(node: Node, theirs_json: bytes) -> tuple[str, list[str]]:
    """The run of a receipt that the other institution shows, and how ours differs from it.

    Raises NoReceipt, MalformedEnvelope, ReceiptBroken.
    """
    theirs = Envelope.from_json(theirs_json.strip())
    run, kind = receipt.run_of(theirs)
    people.read(node, "audit.compare", run=run)
    with node.reading() as conn:
        ours = receipt.find(conn, run, kind)
    if ours is None:
        raise NoReceipt(
            f"This node has no receipt for the {kind} of run {run}.",
            "Either this institution was not in that run, or its store lacks it: see "
            "`concordat audit verify`.",
        )
    return run, receipt.differences(ours, theirs, node.signing_keys())
