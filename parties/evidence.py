"""Evidence for outsiders: of the log, of a run, of one person."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from compliance import activities, evidence, succession, timeline
from compliance.choices import Form, Kind
from compliance.errors import EvidenceUnwritable
from compliance.evidence import Scope, Source
from compliance.note import VerifierKey
from compliance.succession import OWN, PEERS
from compliance.timeline import Timeline
from parties import peers, people, witnessing
from parties.files import write_private
from parties.identity import Identity
from parties.node import Node


def export(node: Node, path: Path, scope: Scope) -> int:
    """Writes evidence of the log, or of a part of it, to a new folder; how many entries it shows.

    Raises NotInLog, EvidenceUnwritable.
    """
    people.read(node, "audit.export", **({} if scope.run is None else {"run": scope.run}))
    now = node.now()
    with node.reading() as conn:
        more = dict(activities.files(conn, **_about(node), now=now))
        return evidence.export(_source(conn, node), path, scope, time=now, more=more)


def register(node: Node, kind: Kind, form: Form, output: Path) -> None:
    """Writes a register that the law wants kept. Raises EvidenceUnwritable."""
    people.read(node, f"audit.register.{kind}")
    now = node.now()
    with node.reading() as conn:
        rows = activities.rows(conn, kind, **_about(node), now=now)
    data = activities.write(kind, form, rows, name=node.config.name, now=now)
    try:
        write_private(output, data, overwrite=True)
    except OSError as error:
        raise EvidenceUnwritable(
            f"{output} cannot be written: {error.strerror}.",
            "Name a place where this user may write and the disk has room.",
        ) from error


def _about(node: Node) -> dict[str, Any]:
    return {
        "name": node.config.name,
        "origin": node.log.origin,
        "stated": node.config.record,
    }


def scope(node: Node, run: str | None, since: datetime | None, until: datetime | None) -> Scope:
    """What is to be shown. run: its id, or the first digits. Raises UnknownRun."""
    return Scope(node.find_run(run)["id"] if run else None, since, until)


def person(node: Node, subject: str, run: str | None, output: Path | None) -> Timeline:
    """One person's timeline, written out as evidence too if `output` names a new folder.

    run: one to show in any case, also that the person was not in it; its id, or the first digits.
    Raises PersonUnknown, UnknownRun, NotInLog, EvidenceUnwritable.
    """
    named = node.find_run(run)["id"] if run else None
    people.read(node, "audit.person", **({} if named is None else {"run": named}))
    now = node.now()
    with node.reading() as conn:
        told = timeline.of_person(conn, node.log, node.vault_keys, subject, now=now, run=named)
        if output is not None:
            with evidence.folder(output) as made:
                source = _source(conn, node)
                timeline.write(source, made, told)
                made.close(source, {"person": "one"}, now)
    return told


def _source(conn: Connection, node: Node) -> Source:
    """With every key that this node's log, or what is pinned, knows."""
    entries, own = node.successions(conn), node.identity
    known = (own, *peers.all_peers(conn))

    def line(one: Identity, kind: succession.Kind) -> list[bytes]:
        type_, now = OWN if one is own else PEERS, one.key(kind)
        past, _ = succession.history(entries, type_, one.name, kind, now)
        return [*(key.public for key in past), now]

    def notes(kind: succession.Kind, text: Callable[[Identity], str]) -> dict[str, Any]:
        return {
            one.name: [replace(VerifierKey.parse(text(one)), public=key) for key in line(one, kind)]
            for one in known
        }

    return Source(
        conn,
        node.log,
        node.config.name,
        node.signing_key,
        {one.name: line(one, "signing") for one in known},
        notes("log", lambda one: one.log_key),
        witnessing.pinned(conn) | notes("witness", lambda one: one.witness_key),
    )
