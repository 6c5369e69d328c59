"""The officer's commands: verify everything, list the log, compare two institutions' receipts."""

import json
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from compliance import audit, receipt
from compliance.audit import Verdict
from compliance.canonical import parse
from compliance.errors import LogRolledBack, SplitView
from compliance.note import VerifierKey
from compliance.signing import Envelope
from parties import witnessing
from parties.errors import JobError, NoReceipt
from parties.node import Node

_HIDDEN = {"type", "time", "nonce"}
_MAX_RECEIPT = 8 << 20


def verify(node: Node, *, offline: bool = False) -> tuple[Verdict, list[str]]:
    """Recompute the log and all that rests on it; the verdict, and which witnesses were not asked.

    Unless `offline`, each partner is asked to cosign the latest checkpoint: it refuses if what it
    has seen of this log is not what is here now, which no look at the store alone can tell.
    """
    peers = node.peers()
    disagreements: list[str] = []
    silent: list[str] = []
    for peer in peers:
        try:
            if offline or not witnessing.ask(node, peer):
                silent.append(peer.name)
        except (LogRolledBack, SplitView) as found:
            disagreements.append(f"witness {peer.name}: {found.message}")
    with node.reading() as conn:
        verdict = audit.verify(
            conn,
            node.log.verifier,
            keys=node.signing_keys(),
            vault=node.vault_keys,
            witnesses=[VerifierKey.parse(peer.witness_key) for peer in peers],
            partners=[VerifierKey.parse(peer.log_key) for peer in peers],
        )
    verdict.report.findings[:0] = disagreements
    return verdict, silent


def print_log(node: Node, console: Console, *, as_json: bool) -> None:
    """Every entry, oldest first; as JSON, one a line: its index and what it says."""
    with node.reading() as conn:
        for entry in node.log.entries(conn):
            if as_json:
                print(json.dumps({"index": entry.index, "entry": parse(entry.leaf)}))
                continue
            body = {key: value for key, value in parse(entry.leaf).items() if key not in _HIDDEN}
            text = ", ".join(f"{key} {_short(value)}" for key, value in sorted(body.items()))
            console.print(f"{entry.index:>6}  {entry.time}  {entry.type:20} {escape(text)}")


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:12]}…"


def compare(node: Node, path: Path) -> tuple[str, list[str]]:
    """The run of a receipt that the other institution shows, and how ours differs from it.

    Raises NoReceipt, MalformedEnvelope, ReceiptBroken, JobError.
    """
    try:
        with path.open("rb") as file:
            theirs = Envelope.from_json(file.read(_MAX_RECEIPT).strip())
    except OSError as error:
        raise JobError(
            f"{path} cannot be read: {error.strerror}.",
            "Name the receipt.json that the partner sent.",
        ) from error
    run, kind = receipt.run_of(theirs)
    with node.reading() as conn:
        ours = receipt.find(conn, run, kind)
    if ours is None:
        raise NoReceipt(
            f"This node has no receipt for the {kind} of run {run}.",
            "Either this institution was not in that run, or its store lacks it: see "
            "`concordat audit verify`.",
        )
    return run, receipt.differences(ours, theirs, node.signing_keys())
