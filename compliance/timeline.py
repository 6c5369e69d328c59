"""One person's timeline: what the log says of them and which runs they were in, each with a proof.

Proofs open what the log holds closed: they show the person's secret, under which its HMACs are
made, and the salts of runs. Whoever has them can find this person's entries, and nobody else's.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import Connection, Row, select

from compliance import evidence, merkle, offline, receipt, withdrawal
from compliance.batch import as_bytes, fetch
from compliance.canonical import canonical, parse, to_base64
from compliance.consent import (
    consent_leaves,
    records,
    refusal_records,
    restriction_records,
    restrictions,
    when,
)
from compliance.errors import NotInLog, PersonUnknown
from compliance.evidence import Folder, Source
from compliance.gate import Scope, run_inputs, run_references
from compliance.log import Log, log_entries, subtree_leaves, subtree_proof
from compliance.note import Checkpoint
from compliance.notice import notices
from compliance.person import Changes, Person
from compliance.proof import Proof
from compliance.vault import VaultKeys, tombstones, tombstones_of
from federated import _native

Timeline = dict[str, Any]

_ROW = 32  # bytes of a run's leaf


def of_person(
    conn: Connection, log: Log, keys: VaultKeys, subject: str, *, now: datetime, run: str | None
) -> Timeline:
    """What can be shown of a person: the timeline, the runs, and erasures.

    subject: `kind:` and canonical id. run: one to show the person's absence from, if it is so; of
    other runs only those the person was in are listed. Of an erased person there is the tombstone
    only. Raises PersonUnknown (E408), NotInLog (E521) if this side put nobody into that run.
    """
    stones = _tombstones(conn, keys, subject)
    changes = Changes(conn, log, keys, now)
    try:
        person = changes.find(subject)
    except PersonUnknown:
        if not stones:
            raise
        return {"secret": None, "timeline": [], "runs": [], "erased": stones}
    events = [*_consents(changes, person), *_refusals(changes, person), *_kept(changes, person)]
    return {
        "secret": person.secret.tobytes().hex(),
        "timeline": sorted(events, key=lambda one: one["entry"]),
        "runs": list(_runs(conn, log, person, run)),
        "erased": stones,
    }


def in_words(told: Timeline) -> Iterator[str]:
    """The timeline a line at a time, for people."""
    for item in told["timeline"]:
        yield f"{item['time']}  entry {item['entry']}, {item['type']}: {item['record']}"
    for item in told["runs"]:
        what = "was" if item["present"] else "was NOT"
        yield (
            f"{item['started']}  run {item['run']}: this person's data {what} among the "
            f"{item['size']:,} put in, for {item['purpose']}"
        )
        for one in item.get("told", ()):
            answer = "it has proved that it did" if one["acknowledged"] else "not acknowledged yet"
            yield (
                f"  entry {one['entry']}: {one['recipient']} was told on {one['time']} to delete "
                f"what it holds of them; {answer}"
            )
        if not item["present"]:
            near = " and ".join(f"{at} ({leaf})" for at, leaf in item["neighbours"].items())
            yield (
                f"  it would be {item['leaf']}, at place {item['index']}; the neighbours there are "
                f"{near}. That counts once the tree is built again from all leaves: verify.py does."
            )
    for item in told["erased"]:
        yield f"{item['erased_at']}  entry {item['entry']}: the person was erased"
    if told["secret"] is None:
        yield "Nothing else in the log can be tied to this person any more."


def write(source: Source, made: Folder, told: Timeline) -> None:
    """Adds a person's timeline to evidence, with a proof of every entry it speaks of.

    And with all leaves of a run that the person was not in: whoever verifies builds its tree.
    """
    conn, log = source.conn, source.log
    runs = [item["run"] for item in told["runs"]]
    places = {item["entry"] for name in ("timeline", "erased") for item in told[name]}
    places.update(one["entry"] for item in told["runs"] for one in item.get("told", ()))
    places.update(_notices(conn, made, told))
    places |= evidence.belonging_to(source, runs)[0]
    places |= evidence.users_behind(conn, places)
    heads = source.heads()
    for head in heads:
        made.write(f"checkpoints/{head.size}.note", head.encode())
    for index in sorted(places):
        head = _strongest(heads, index)
        proof = Proof(index, tuple(log.inclusion_proof(conn, index, head.size)), head)
        made.write(f"entries/{index}.json", next(log.entries(conn, index, index + 1)).leaf)
        made.write(f"entries/{index}.tlog-proof", proof.encode())
    evidence.add_receipts(source, made, runs)
    for item in told["runs"]:
        if not item["present"]:
            query = select(run_inputs.c.leaves).where(run_inputs.c.run == item["run"])
            made.write(f"inputs/{item['run']}.leaves", conn.execute(query).scalar_one())
    made.write(offline.PERSON, canonical(told))


def _strongest(heads: list[Checkpoint], index: int) -> Checkpoint:
    """The latest head that covers an entry and that a witness has cosigned; or the latest."""
    covering = [head for head in heads if head.size > index]
    cosigned = [head for head in covering if len(head.signatures) > 1]
    return (cosigned or covering)[-1]


def _consents(changes: Changes, person: Person) -> Iterator[Timeline]:
    """Every leaf that commits to a state of one of the person's consents."""
    held = changes.consents(person).drop(columns=["state", "withdrawn_at", "notice"])
    leaf = consent_leaves.c
    columns = [leaf[name] for name in ("entry", "position", "consent", "state", "withdrawn_at")]
    digest = select(notices.c.digest).where(notices.c.id == leaf.notice).scalar_subquery()
    query = select(*columns, digest.label("notice"))
    rows = fetch(changes.conn, query.where(leaf.consent.in_(held["id"].tolist())))
    rows = rows.merge(held, left_on="consent", right_on="id")
    rows["notice"] = rows["notice"].fillna("")
    for row, record in zip(rows.to_dict("records"), records(rows), strict=True):
        yield _event(changes.conn, int(row["entry"]), int(row["position"]), record)


def _refusals(changes: Changes, person: Person) -> Iterator[Timeline]:
    """Every no, and whatever else ended consents one by one."""
    rows = changes.refusals(person)
    for index, record in zip(rows["entry"], refusal_records(rows), strict=True):
        yield _event(changes.conn, int(index), 0, record)


def _kept(changes: Changes, person: Person) -> Iterator[Timeline]:
    """Restrictions and their ends."""
    query = select(restrictions).where(restrictions.c.subject == person.id)
    rows = fetch(changes.conn, query)
    for index, record in zip(rows["entry"], restriction_records(rows), strict=True):
        yield _event(changes.conn, int(index), 0, record)


def _event(conn: Connection, index: int, position: int, record: str) -> Timeline:
    entry = log_entries.c
    body = parse(conn.execute(select(entry.leaf).where(entry.index == index)).scalar_one())
    said = {"entry": index, "type": body["type"], "time": body["time"], "record": record}
    if "subtree" not in body:
        return said
    root = bytes.fromhex(body["subtree"]["root"])
    _, path = subtree_proof(conn, root, position)
    query = select(subtree_leaves.c.leaf).where(
        subtree_leaves.c.root == root, subtree_leaves.c.index == position
    )
    leaf = conn.execute(query).scalar_one().decode()
    return said | {"position": position, "leaf": leaf, "proof": [to_base64(one) for one in path]}


def _runs(conn: Connection, log: Log, person: Person, named: str | None) -> Iterator[Timeline]:
    """The runs that the person's data was put into, and the one that is named in any case."""
    table = run_inputs.c
    found = False
    for run in conn.execute(select(table.run)).scalars().all():
        row = conn.execute(select(run_inputs).where(table.run == run)).one()
        found |= run == named
        intent = receipt.find(conn, run, "intent")
        if intent is None:
            continue
        started = parse(intent.payload)["predicate"]
        reference = run_references(person.secret, log.origin, _scope(started))
        mine = _native.hmac_sha256(row.salt, reference.tobytes(), np.array([0, _ROW], np.uint64))
        leaf, size = mine.tobytes(), len(row.leaves) // _ROW
        at = _find(row.leaves, leaf)
        present = at < size and _row(row.leaves, at) == leaf
        if not present and run != named:
            continue
        query = select(log_entries.c.index).where(
            log_entries.c.run == run, log_entries.c.type == "run.intent"
        )
        said = {
            "run": run,
            "entry": conn.execute(query).scalar_one(),
            "started": started["started"],
            "purpose": started["purpose"],
            "agreement": started["agreement"],
            "salt": row.salt.hex(),
            "present": present,
            "index": at,
            "size": size,
        }
        yield said | (
            {
                "proof": [to_base64(one) for one in _path(row.leaves, at, size)],
                "told": list(_told(conn, run, at)),
            }
            if present
            else {
                "leaf": leaf.hex(),
                "neighbours": {
                    str(i): _row(row.leaves, i).hex() for i in (at - 1, at) if 0 <= i < size
                },
            }
        )
    if named is not None and not found:
        raise NotInLog(
            f"Nobody of this institution's was put into run {named}.",
            "`concordat job show` says how it ended.",
        )


def _told(conn: Connection, run: str, place: int) -> Iterator[Timeline]:
    """Whom this institution told to delete what it holds of the person's row, and what followed."""
    for notice in withdrawal.about(conn, run, place):
        yield {
            "entry": notice.entry,
            "recipient": notice.recipient,
            "time": notice.time,
            "acknowledged": notice.acknowledgement is not None,
            "notice": notice.envelope.decode(),
        }


def _scope(started: dict[str, Any]) -> Scope:
    named = started["agreement"]
    return Scope(named["id"], named["version"], started["purpose"], "", frozenset())


def _find(leaves: bytes, leaf: bytes) -> int:
    """Where a leaf stands among sorted ones, or would stand."""
    low, high = 0, len(leaves) // _ROW
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if _row(leaves, middle) < leaf else (low, middle)
    return low


def _row(leaves: bytes, index: int) -> bytes:
    return leaves[_ROW * index : _ROW * (index + 1)]


def _path(leaves: bytes, index: int, size: int) -> Iterator[bytes]:
    """The inclusion proof of a leaf in the tree of a run's inputs."""
    for start, stop in merkle.inclusion_ranges(index, size):
        offsets = np.arange(stop - start + 1, dtype=np.uint64) * _ROW
        yield _native.merkle_root(leaves[_ROW * start : _ROW * stop], offsets)


def _tombstones(conn: Connection, keys: VaultKeys, subject: str) -> list[Timeline]:
    """Every erasure of whoever this is."""
    found: list[Row[Any]] = []
    for count in range(1, len(keys.lookups) + 1):
        (stone,) = as_bytes(tombstones_of(keys.subjects_of([subject], count)))
        query = select(tombstones).where(
            tombstones.c.tombstone == stone, tombstones.c.lookup_keys == count
        )
        found += conn.execute(query.order_by(tombstones.c.entry)).all()
    return [
        {
            "entry": row.entry,
            "tombstone": row.tombstone.hex(),
            "salt": row.salt.hex(),
            "lookup_keys": row.lookup_keys,
            "erased_at": when(row.erased_at),
            "above": row.above,
        }
        for row in found
    ]


def _notices(conn: Connection, made: Folder, told: Timeline) -> Iterable[int]:
    """Adds the notices that a person's consents name; returns the entries that speak of them."""
    digests = {parse(item["record"].encode()).get("notice") for item in told["timeline"]}
    rows = conn.execute(select(notices).where(notices.c.digest.in_(digests - {None}))).all()
    with made.file(offline.NOTICES) as file:
        for row in rows:
            file.write(row.document + b"\n")
    return [row.entry for row in rows]
