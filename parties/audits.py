"""The officer's commands: verify everything, list the log."""

import json

from rich.console import Console
from rich.markup import escape

from compliance import audit
from compliance.audit import Verdict
from compliance.canonical import parse
from compliance.note import VerifierKey
from parties.node import Node

_HIDDEN = {"type", "time", "nonce"}


def verify(node: Node) -> Verdict:
    """Recompute the log and everything that rests on it, from one snapshot of the store."""
    witnesses = [VerifierKey.parse(peer.witness_key) for peer in node.peers()]
    with node.reading() as conn:
        return audit.verify(
            conn,
            node.log.verifier,
            keys=node.signing_keys(),
            vault=node.vault_keys,
            witnesses=witnesses,
        )


def print_log(node: Node, console: Console, *, as_json: bool) -> None:
    """Every entry, oldest first; as JSON, one a line: its index and the stored bytes."""
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
