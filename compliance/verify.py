"""Verify a whole log: every entry, hash, checkpoint, cosignature and sub-tree.

Nothing stored is believed. Leaf hashes are computed from the entries' bytes and the tree is built
anew from them; columns and stored hashes are only compared. Whatever differs is listed, never
raised, so that one changed byte does not hide another. A page of rows is held at a time.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Executable, and_, func, not_, or_, select

from compliance import merkle
from compliance.canonical import parse
from compliance.errors import (
    InvalidSignature,
    LogDamaged,
    MalformedNote,
    NotCanonical,
    UnverifiedNote,
)
from compliance.log import (
    PAGE,
    Entry,
    checkpoints,
    cosignatures,
    log_entries,
    log_nodes,
    subtree_leaves,
    subtree_range,
    tree_root,
    tree_size,
)
from compliance.merkle import Frontier
from compliance.note import Checkpoint, Signature, VerifierKey

MAX_FINDINGS = 1000


@dataclass
class LogReport:
    """What verifying found: nothing, if `ok`.

    `cosigned` is the largest size each witness has cosigned; what comes later only this
    institution vouches for. At most MAX_FINDINGS are listed; `unlisted` counts the rest.
    """

    size: int = 0
    checkpoints: int = 0
    cosignatures: int = 0
    subtrees: int = 0
    cosigned: dict[str, int] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    unlisted: int = 0

    @property
    def ok(self) -> bool:
        return not self.findings

    def add(self, where: str, problem: str) -> None:
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(f"{where}: {problem}")
        else:
            self.unlisted += 1


def verify_log(
    conn: Connection, log: VerifierKey, witnesses: Iterable[VerifierKey] = ()
) -> LogReport:
    """Check the log with its key and those of all its witnesses, past ones too.

    Raises nothing for what it finds; E707 if the database itself cannot be read.
    """
    report = LogReport(size=tree_size(conn))
    _Tree(conn, report).check()
    _check_checkpoints(conn, report, log)
    _check_cosignatures(conn, report, tuple(witnesses))
    return report


class _Tree:
    """Entries, stored hashes and sub-trees."""

    def __init__(self, conn: Connection, report: LogReport) -> None:
        self.conn = conn
        self.report = report
        self.frontier = Frontier()
        # Subtrees that differ, until their parent has been compared: only the lowest is reported.
        self.differing: set[tuple[int, int]] = set()
        self.subtree_roots: set[bytes] = set()

    def check(self) -> None:
        previous = -1
        for page in _pages(self.conn, select(log_entries).order_by(log_entries.c.index)):
            completed = defaultdict(list)
            for row in page:
                entry = Entry(*row)
                leaf_hash = merkle.leaf_hash(_bytes(entry.leaf))
                if entry.index == self.frontier.size:
                    if leaf_hash != entry.leaf_hash:
                        self.differing.add((0, entry.index))
                    for level, index, subtree in self.frontier.append(leaf_hash):
                        completed[level].append((index, subtree))
                elif entry.index != previous + 1:  # the tree cannot be built past a gap
                    self.report.add(f"entry {entry.index}", "what comes before it is missing")
                previous = entry.index
                self._check_entry(entry, leaf_hash)
            for level in sorted(completed):
                self._compare(level, completed[level])
        self._check_strays()

    def _check_entry(self, entry: Entry, leaf_hash: bytes) -> None:
        name = f"entry {entry.index}"
        if leaf_hash != entry.leaf_hash:
            self.report.add(name, "leaf hash differs")
        try:
            body = parse(_bytes(entry.leaf))
        except NotCanonical:
            body = None
        if not isinstance(body, dict):
            self.report.add(name, "not a JSON object in canonical form")
            return
        for column in ("type", "time", "run"):
            if body.get(column) != getattr(entry, column):
                self.report.add(name, f"column {column} differs from the entry")
        if "subtree" in body:
            self._check_subtree(name, body["subtree"])

    def _compare(self, level: int, built: list[tuple[int, bytes]]) -> None:
        """Compare adjacent subtrees of a level with the stored hashes."""
        nodes = log_nodes.c
        between = nodes.index.between(built[0][0], built[-1][0])
        query = select(nodes.index, nodes.hash).where(nodes.level == level, between)
        stored = dict(self.conn.execute(query).all())
        for index, subtree in built:
            children = {(level - 1, 2 * index), (level - 1, 2 * index + 1)}
            if stored.get(index) != subtree:
                if not children & self.differing:
                    first, last = index << level, ((index + 1) << level) - 1
                    problem = "hash differs" if index in stored else "missing"
                    self.report.add(f"node {level}/{index} (entries {first} to {last})", problem)
                self.differing.add((level, index))
            self.differing -= children

    def _check_subtree(self, name: str, subtree: Any) -> None:
        try:
            root, size = bytes.fromhex(subtree["root"]), subtree["size"]
            whole = (size, 0, size - 1)
        except (KeyError, TypeError, ValueError):
            self.report.add(name, "its sub-tree is malformed")
            return
        self.report.subtrees += 1
        self.subtree_roots.add(root)
        leaves = subtree_leaves.c
        stored, first, last = self.conn.execute(
            select(func.count(), func.min(leaves.index), func.max(leaves.index)).where(
                leaves.root == root
            )
        ).one()
        if (stored, first, last) != whole:
            self.report.add(name, f"its sub-tree has {stored} leaves instead of {size}")
        elif merkle.root(map(_bytes, subtree_range(self.conn, root, 0, size))) != root:
            self.report.add(name, "the leaves of its sub-tree differ")

    def _check_strays(self) -> None:
        """Stored hashes and sub-trees that belong to no entry."""
        nodes, size = log_nodes.c, self.report.size
        belongs = or_(
            *(
                and_(nodes.level == level, nodes.index.between(0, (size >> level) - 1))
                for level in range(1, max(2, size.bit_length()))
            )
        )
        strays = select(nodes.level, nodes.index).where(not_(belongs)).limit(MAX_FINDINGS)
        for level, index in self.conn.execute(strays):
            self.report.add(f"node {level}/{index}", "belongs to no entries")
        for root in self.conn.execute(select(subtree_leaves.c.root).distinct()).scalars():
            if root not in self.subtree_roots:
                self.report.add(f"sub-tree {_bytes(root).hex()}", "no entry commits to it")


def _check_checkpoints(conn: Connection, report: LogReport, log: VerifierKey) -> None:
    for page in _pages(conn, select(checkpoints).order_by(checkpoints.c.size)):
        for size, root, note in page:
            report.checkpoints += 1
            problem = _checkpoint_problem(conn, report.size, log, (size, root, _bytes(note)))
            if problem:
                report.add(f"checkpoint {size}", problem)


def _checkpoint_problem(
    conn: Connection, entries: int, log: VerifierKey, row: tuple[int, bytes, bytes]
) -> str | None:
    size, root, note = row
    try:
        checkpoint = Checkpoint.parse(note)
        checkpoint.verify(log)
    except MalformedNote:
        return "malformed"
    except UnverifiedNote:
        return "not signed by the log"
    if (checkpoint.size, checkpoint.root) != (size, root):
        return "its columns differ from what is signed"
    if size > entries:
        return f"the log has only {entries} entries"
    try:  # the stored hashes serve here: they have been compared with the entries
        same = tree_root(conn, size) == root
    except (LogDamaged, TypeError):  # a hash is missing, or not even bytes
        same = False
    return None if same else "its root differs from the entries"


def _check_cosignatures(
    conn: Connection, report: LogReport, witnesses: Sequence[VerifierKey]
) -> None:
    key = (cosignatures.c.size, cosignatures.c.witness)
    joined = cosignatures.outerjoin(checkpoints, cosignatures.c.size == checkpoints.c.size)
    query = select(*key, cosignatures.c.line, checkpoints.c.note).select_from(joined)
    for page in _pages(conn, query.order_by(*key)):
        for size, name, line, note in page:
            report.cosignatures += 1
            problem = _cosignature_problem(witnesses, name, str(line), _bytes(note))
            if problem:
                report.add(f"cosignature of {name} on checkpoint {size}", problem)
            else:
                report.cosigned[name] = size


def _cosignature_problem(
    witnesses: Sequence[VerifierKey], name: str, line: str, note: bytes
) -> str | None:
    try:
        signature = Signature.parse(line)
        checkpoint = Checkpoint.parse(note)
    except MalformedNote:
        return "it or the checkpoint is malformed"
    witness = next((key for key in witnesses if signature.by(key)), None)
    if witness is None or witness.name != name:
        return "not a known witness's"
    try:
        witness.verify(checkpoint.text, signature.value)
    except InvalidSignature:
        return "does not verify"
    return None


def _pages(conn: Connection, query: Executable) -> Iterator[Sequence[Any]]:
    return conn.execute(query.execution_options(yield_per=PAGE)).partitions()


def _bytes(value: object) -> bytes:
    """SQLite columns hold any type; what is not bytes is no entry, hash or note."""
    return value if isinstance(value, bytes) else b""
