"""Whoever holds the store's file can change it. Every change must be found and named."""

import shutil
import sqlite3
from datetime import UTC, datetime

import pytest
from sqlalchemy import delete, insert, select, update

from compliance import merkle
from compliance.canonical import canonical
from compliance.errors import StoreDamaged
from compliance.log import TILE, Log, commit_subtree, log_entries, log_nodes
from compliance.note import COSIGNATURE, Checkpoint, VerifierKey, cosign, sign
from compliance.signing import SigningKey
from compliance.store import open_store, read, write
from compliance.verify import MAX_FINDINGS, PAGE, verify_log

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LOG = Log("bank.example/log", SigningKey.generate())
WITNESS = SigningKey.generate()
WITNESS_KEY = VerifierKey("partner.example/witness", WITNESS.public, COSIGNATURE)
SUBTREE = [b"consent number %d of five" % n for n in range(5)]
SUBTREE_ROOT = merkle.root(SUBTREE)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """20 entries and a bulk import, with checkpoints at 8, 20 and 21, the last two cosigned."""
    path = tmp_path_factory.mktemp("store") / "node.db"
    engine = open_store(f"sqlite:///{path}", create=True)
    with write(engine) as conn:
        for size, entries in ((8, range(8)), (20, range(8, 20))):
            bodies = [("test", {"n": n, "run": f"run {n}"}) for n in entries]
            LOG.append_many(conn, bodies, time=NOW)
            checkpoint = LOG.checkpoint(conn)
            assert checkpoint.size == size
        cosign_head(conn, checkpoint)
        root = commit_subtree(conn, SUBTREE).hex()
        LOG.append(conn, "consent.import", {"subtree": {"root": root, "size": 5}}, time=NOW)
        cosign_head(conn, LOG.checkpoint(conn))
    with engine.connect() as conn:
        conn.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    engine.dispose()
    return path


def cosign_head(conn, checkpoint):
    line = cosign(checkpoint.text, WITNESS_KEY.name, WITNESS, NOW)
    LOG.add_cosignature(conn, checkpoint.size, line)


@pytest.fixture
def path(original, tmp_path):
    return shutil.copy(original, tmp_path / "node.db")


def verified(path, log=LOG.verifier, witnesses=(WITNESS_KEY,)):
    with read(open_store(f"sqlite:///{path}")) as conn:
        return verify_log(conn, log, witnesses)


def tamper(path, *statements):
    conn = sqlite3.connect(path)
    for statement in statements:
        conn.execute(*statement) if isinstance(statement, tuple) else conn.execute(statement)
    conn.commit()
    conn.close()


def test_an_honest_log(path):
    report = verified(path)
    assert report.ok
    assert report.findings == []
    assert (report.size, report.checkpoints, report.cosignatures, report.subtrees) == (21, 3, 2, 1)
    assert report.cosigned == {WITNESS_KEY.name: 21}


def test_an_empty_log(tmp_path):
    open_store(f"sqlite:///{tmp_path}/new.db", create=True)
    report = verified(tmp_path / "new.db")
    assert report.ok
    assert report.size == 0


def stored(path, query):
    with sqlite3.connect(path) as conn:
        return conn.execute(query).fetchone()[0]


# What one changed bit, in the bytes of the file itself, is reported as.
BITS = {
    "leaf": ('SELECT leaf FROM log_entries WHERE "index" = 17', "entry 17: leaf hash differs"),
    "leaf hash": (
        'SELECT leaf_hash FROM log_entries WHERE "index" = 17',
        "entry 17: leaf hash differs",
    ),
    "checkpoint's root": (
        "SELECT root FROM checkpoints WHERE size = 21",
        "checkpoint 21: its columns differ from what is signed",
    ),
    # The changed signature may no longer be Base64, or may be one of another key.
    "checkpoint's note": (
        "SELECT note FROM checkpoints WHERE size = 8",
        ("checkpoint 8: not signed by the log", "checkpoint 8: malformed"),
    ),
    "cosignature": (
        "SELECT line FROM cosignatures WHERE size = 20",
        f"cosignature of {WITNESS_KEY.name} on checkpoint 20: ",
    ),
    "sub-tree leaf": (
        'SELECT leaf FROM subtree_leaves WHERE "index" = 3',
        "entry 20: the leaves of its sub-tree differ",
    ),
}


@pytest.mark.parametrize(("query", "finding"), BITS.values(), ids=BITS)
def test_one_changed_bit_in_the_file_is_named(path, query, finding):
    value = stored(path, query)
    value = value.encode() if isinstance(value, str) else value
    data = path.read_bytes()
    assert data.count(value) == 1
    position = data.index(value) + len(value) - 12
    path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])

    findings = verified(path).findings
    assert findings
    assert findings[0].startswith(finding)


def test_every_bit_of_an_entry_counts(path):
    leaf = stored(path, 'SELECT leaf FROM log_entries WHERE "index" = 3')
    engine = open_store(f"sqlite:///{path}")
    for bit in range(0, len(leaf) * 8, 5):
        changed = bytearray(leaf)
        changed[bit // 8] ^= 1 << bit % 8
        with write(engine) as conn:
            query = 'UPDATE log_entries SET leaf = ? WHERE "index" = 3'
            conn.exec_driver_sql(query, (bytes(changed),))
            assert "entry 3: leaf hash differs" in verify_log(conn, LOG.verifier).findings


@pytest.mark.parametrize(
    ("column", "value"),
    [("type", "other"), ("time", "2026-03-02T00:00:00Z"), ("run", "run 5"), ("run", None)],
)
def test_a_changed_column_is_named(path, column, value):
    statement = f'UPDATE log_entries SET {column} = ? WHERE "index" = 4'  # noqa: S608
    tamper(path, (statement, (value,)))
    assert verified(path).findings == [f"entry 4: column {column} differs from the entry"]


def rewritten(path, index, n):
    """Statements that replace an entry by another and its leaf hash to match."""
    body = {"type": "test", "time": "2026-03-01T00:00:00Z", "run": f"run {index}", "n": n}
    leaf = canonical(body | {"nonce": "00" * 16})
    return (
        'UPDATE log_entries SET leaf = ?, leaf_hash = ? WHERE "index" = ?',
        (leaf, merkle.leaf_hash(leaf), index),
    )


def test_a_replaced_entry_is_found_through_the_tree(path):
    tamper(path, rewritten(path, 13, 99))
    assert verified(path).findings == [
        "checkpoint 20: its root differs from the entries",
        "checkpoint 21: its root differs from the entries",
    ]


def rebuild(path):
    """Make every stored hash match the entries, as a thorough forger would."""
    with sqlite3.connect(path) as conn:
        rows = conn.execute('SELECT leaf FROM log_entries ORDER BY "index"').fetchall()
        conn.execute("DELETE FROM log_nodes")
        frontier = merkle.Frontier()
        for (leaf,) in rows:
            for node in frontier.append(merkle.leaf_hash(leaf)):
                if node[0] >= TILE:
                    conn.execute("INSERT INTO log_nodes VALUES (?, ?, ?)", node)
    conn.close()


def test_a_history_the_log_itself_rewrote_is_found_through_the_cosignatures(path):
    tamper(path, rewritten(path, 13, 99))
    rebuild(path)
    with write(open_store(f"sqlite:///{path}")) as conn:
        conn.exec_driver_sql("DELETE FROM checkpoints WHERE size > 8")
        LOG.checkpoint(conn)
    assert verified(path).findings == [
        f"cosignature of {WITNESS_KEY.name} on checkpoint 20: it or the checkpoint is malformed",
        f"cosignature of {WITNESS_KEY.name} on checkpoint 21: does not verify",
    ]


def test_reordered_entries_are_found(path):
    swap = 'UPDATE log_entries SET "index" = {} WHERE "index" = {}'
    tamper(path, swap.format(99, 4), swap.format(4, 7), swap.format(7, 99))
    assert verified(path).findings == [
        f"checkpoint {size}: its root differs from the entries" for size in (8, 20, 21)
    ]


def test_a_removed_entry_is_found(path):
    tamper(path, 'DELETE FROM log_entries WHERE "index" = 5')
    findings = verified(path).findings
    assert "entry 6: what comes before it is missing" in findings


def test_removed_last_entries_are_found(path):
    tamper(path, 'DELETE FROM log_entries WHERE "index" >= 18')
    findings = verified(path).findings
    assert "checkpoint 20: the log has only 18 entries" in findings
    assert "checkpoint 21: the log has only 18 entries" in findings


def test_removed_last_entries_and_hashes_are_found(path):
    tamper(path, 'DELETE FROM log_entries WHERE "index" >= 8')
    rebuild(path)
    tamper(path, "DELETE FROM subtree_leaves")
    assert verified(path).findings == [
        "checkpoint 20: the log has only 8 entries",
        "checkpoint 21: the log has only 8 entries",
    ]


def test_stray_nodes_are_found(path):
    strays = ((0, 3), (1, 0), (8, 0), (9, -1))
    statement = "INSERT INTO log_nodes VALUES (?, ?, x'00')"
    tamper(path, *((statement, stray) for stray in strays))
    assert verified(path).findings == [
        f"node {level}/{index}: belongs to no entries" for level, index in strays
    ]


def test_checkpoints_of_another_key_are_found(path):
    other = SigningKey.generate()
    report = verified(path, log=VerifierKey(LOG.origin, other.public))
    assert report.findings[0] == "checkpoint 8: not signed by the log"
    forged = Checkpoint(LOG.origin, 8, bytes(32))
    forged = forged.signed(sign(forged.text, LOG.origin, other))
    tamper(
        path,
        (
            "UPDATE checkpoints SET root = ?, note = ? WHERE size = 8",
            (forged.root, forged.encode()),
        ),
    )
    assert verified(path).findings == ["checkpoint 8: not signed by the log"]


def test_a_fork_signed_by_the_logs_own_key_is_found(path):
    fork = Checkpoint(LOG.origin, 8, bytes(32))
    fork = fork.signed(sign(fork.text, LOG.origin, LOG.key))
    tamper(
        path,
        ("UPDATE checkpoints SET root = ?, note = ? WHERE size = 8", (fork.root, fork.encode())),
    )
    assert verified(path).findings == ["checkpoint 8: its root differs from the entries"]


def test_cosignatures_of_strangers_are_found(path):
    report = verified(path, witnesses=())
    name = f"cosignature of {WITNESS_KEY.name} on checkpoint"
    assert report.findings == [
        f"{name} 20: not a known witness's",
        f"{name} 21: not a known witness's",
    ]
    assert report.cosigned == {}


def test_a_past_key_of_a_witness_still_counts(path):
    renewed = SigningKey.generate()
    name = WITNESS_KEY.name
    with write(open_store(f"sqlite:///{path}")) as conn:
        LOG.append(conn, "test", {}, time=NOW)
        head = LOG.checkpoint(conn)
        LOG.add_cosignature(conn, head.size, cosign(head.text, name, renewed, NOW))
    keys = (WITNESS_KEY, VerifierKey(name, renewed.public, COSIGNATURE))
    report = verified(path, witnesses=keys)
    assert report.ok
    assert report.cosigned == {name: 22}


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (
            'DELETE FROM subtree_leaves WHERE "index" = 4',
            "entry 20: its sub-tree has 4 leaves instead of 5",
        ),
        (
            'UPDATE subtree_leaves SET "index" = 9 WHERE "index" = 2',
            "entry 20: its sub-tree has 5 leaves instead of 5",
        ),
        ("DELETE FROM subtree_leaves", "entry 20: its sub-tree has 0 leaves instead of 5"),
        (
            "INSERT INTO subtree_leaves VALUES (x'ab', 0, x'00')",
            "sub-tree ab: no entry commits to it",
        ),
    ],
)
def test_changed_sub_trees_are_found(path, change, finding):
    tamper(path, change)
    assert verified(path).findings == [finding]


@pytest.mark.parametrize(
    "subtree",
    [
        None,
        5,
        "x",
        {},
        {"root": "zz", "size": 1},
        {"root": 1, "size": 1},
        {"root": "", "size": "1"},
    ],
)
def test_a_malformed_sub_tree_is_found(path, subtree):
    with write(open_store(f"sqlite:///{path}")) as conn:
        LOG.append(conn, "test", {"subtree": subtree}, time=NOW)
    assert verified(path).findings == ["entry 21: its sub-tree is malformed"]


@pytest.mark.parametrize("leaf", ["[1]", "1", '{"a": 1}', "text", ""])
def test_what_is_no_canonical_object_is_found(path, leaf):
    tamper(path, ('UPDATE log_entries SET leaf = ? WHERE "index" = 3', (leaf.encode(),)))
    assert verified(path).findings == [
        "entry 3: leaf hash differs",
        "entry 3: not a JSON object in canonical form",
    ]


def test_columns_of_another_type_are_findings_too(path):
    tamper(
        path,
        "UPDATE log_entries SET leaf = 'text', leaf_hash = 7, type = 1.5, time = x'00', run = 2",
        "UPDATE checkpoints SET root = 'text' WHERE size = 8",
        "UPDATE checkpoints SET note = 5 WHERE size = 20",
        "UPDATE cosignatures SET line = 5, witness = 6 WHERE size = 20",
        "UPDATE subtree_leaves SET leaf = 1, root = 'r', \"index\" = 'i' || \"index\"",
    )
    findings = verified(path).findings
    assert "entry 0: leaf hash differs" in findings
    assert "checkpoint 8: its columns differ from what is signed" in findings
    assert "checkpoint 20: malformed" in findings
    assert "checkpoint 21: its root differs from the entries" in findings


def test_a_flood_of_findings_is_bounded(path):
    with write(open_store(f"sqlite:///{path}")) as conn:
        LOG.append_many(conn, [("test", {})] * (PAGE + 100), time=NOW)
    tamper(path, "UPDATE log_entries SET type = 'other'")
    report = verified(path)
    assert not report.ok
    assert len(report.findings) == MAX_FINDINGS
    assert report.unlisted == PAGE + 121 - MAX_FINDINGS


def test_trees_larger_than_a_page(path):
    with write(open_store(f"sqlite:///{path}")) as conn:
        LOG.append_many(conn, [("test", {})] * (2 * PAGE), time=NOW)
        LOG.checkpoint(conn)
    assert verified(path).ok
    tamper(path, rewritten(path, PAGE, 5))
    # No other node is blamed, and no checkpoint.
    tile = PAGE >> TILE
    assert verified(path).findings == [
        f"entry {PAGE}: column run differs from the entry",
        f"node {TILE}/{tile} (entries {PAGE} to {PAGE + 255}): hash differs",
    ]


def test_a_sub_tree_is_compared_with_what_is_stored_of_it(path):
    consents = [b"consent number %d" % n for n in range(2 * PAGE + 700)]
    with write(open_store(f"sqlite:///{path}")) as conn:
        root = commit_subtree(conn, consents).hex()
        body = {"subtree": {"root": root, "size": len(consents)}}
        LOG.append(conn, "consent.import", body, time=NOW)
        LOG.checkpoint(conn)
    report = verified(path)
    assert (report.findings, report.subtrees) == ([], 2)
    tamper(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    for change in (
        'UPDATE subtree_nodes SET hash = zeroblob(32) WHERE level = 9 AND "index" = 1',
        "UPDATE subtree_nodes SET hash = 'text' WHERE level = 12 AND \"index\" = 1",
        "DELETE FROM subtree_nodes WHERE level = 13",
        "INSERT INTO subtree_nodes SELECT root, 1, 0, hash FROM subtree_nodes WHERE level = 13",
    ):
        other = shutil.copy(path, path.with_name("other.db"))
        tamper(other, change)
        assert verified(other).findings == [
            "entry 21: the hashes stored of its sub-tree differ from its leaves"
        ]
    tamper(path, "INSERT INTO subtree_nodes VALUES (x'0a', 8, 0, x'00')")
    assert verified(path).findings == ["sub-tree 0a: no entry commits to it"]


@pytest.fixture
def large(store_url):
    """Two whole pages and a part of one, with a checkpoint in the middle of each."""
    engine = open_store(store_url, create=True)
    with write(engine) as conn:
        for _ in range(5):
            LOG.append_many(conn, [("test", {"run": "r1"}), ("test", {})] * (PAGE // 4), time=NOW)
            LOG.checkpoint(conn)
    return engine


def test_a_large_log_on_either_database(large):
    with read(large) as conn:
        report = verify_log(conn, LOG.verifier)
    assert report.findings == []
    assert (report.size, report.checkpoints) == (5 * PAGE // 2, 5)


@pytest.mark.parametrize("index", [5, PAGE, 5 * PAGE // 2 - 1])
def test_one_byte_of_a_large_log(large, index):
    """Whatever stands around it, the byte is found, and by the entry's number."""
    for column, changed, finding in (
        ("leaf", b'{"a":1}', f"entry {index}: leaf hash differs"),
        ("leaf_hash", bytes(32), f"entry {index}: leaf hash differs"),
        ("leaf_hash", bytes(31), f"entry {index}: leaf hash differs"),
        ("type", "tes\nt", f"entry {index}: column type differs from the entry"),
        ("type", "", f"entry {index}: column type differs from the entry"),
        ("run", "r2", f"entry {index}: column run differs from the entry"),
    ):
        with read(large) as conn:
            (kept,) = conn.execute(
                select(log_entries.c[column]).where(log_entries.c.index == index)
            ).scalars()
        where = update(log_entries).where(log_entries.c.index == index)
        with write(large) as conn:
            conn.execute(where.values({column: changed}))
        with read(large) as conn:
            assert verify_log(conn, LOG.verifier).findings[0] == finding
        with write(large) as conn:
            conn.execute(where.values({column: kept}))
    with read(large) as conn:
        assert verify_log(conn, LOG.verifier).findings == []


def test_one_node_of_a_large_log(large):
    """A changed node is named; nothing above it is, and no checkpoint."""
    node = log_nodes.c
    for change, finding in (
        (
            update(log_nodes).where(node.level == 9, node.index == 3).values(hash=bytes(32)),
            "node 9/3 (entries 1536 to 2047): hash differs",
        ),
        (
            update(log_nodes).where(node.level == 8, node.index == 17).values(hash=bytes(31)),
            "node 8/17 (entries 4352 to 4607): hash differs",
        ),
        (
            delete(log_nodes).where(node.level == 12, node.index == 1),
            "node 12/1 (entries 4096 to 8191): missing",
        ),
        (
            insert(log_nodes).values(level=10, index=10, hash=bytes(32)),
            "node 10/10: belongs to no entries",
        ),
    ):
        with write(large) as conn:
            kept = conn.execute(select(log_nodes)).all()
            conn.execute(change)
        with read(large) as conn:
            assert verify_log(conn, LOG.verifier).findings == [finding]
        with write(large) as conn:
            conn.execute(delete(log_nodes))
            conn.execute(insert(log_nodes), [row._asdict() for row in kept])


def test_a_changed_leaf_is_named_alone(large):
    """Whether its tile is whole or not: neither nodes nor checkpoints are blamed for it."""
    for index in (700, 5 * PAGE // 2 - 1):
        at = update(log_entries).where(log_entries.c.index == index)
        with write(large) as conn:
            (kept,) = conn.execute(
                select(log_entries.c.leaf).where(log_entries.c.index == index)
            ).scalars()
            conn.execute(at.values(leaf=kept.replace(b'"test"', b'"tesT"')))
        with read(large) as conn:
            assert verify_log(conn, LOG.verifier).findings == [
                f"entry {index}: leaf hash differs",
                f"entry {index}: column type differs from the entry",
            ]
        with write(large) as conn:
            conn.execute(at.values(leaf=kept))


def test_values_shifted_between_columns_of_neighbours(large):
    """Joined, the page's columns would read the same; each for itself, two differ."""
    with write(large) as conn:
        for index, type_ in ((6, "tes"), (7, "ttest")):
            conn.execute(update(log_entries).where(log_entries.c.index == index).values(type=type_))
        first, second = conn.execute(
            select(log_entries.c.leaf_hash).where(log_entries.c.index.in_([20, 21]))
        ).scalars()
        for index, value in ((20, first[:31]), (21, first[31:] + second)):
            conn.execute(
                update(log_entries).where(log_entries.c.index == index).values(leaf_hash=value)
            )
    with read(large) as conn:
        assert verify_log(conn, LOG.verifier).findings[:4] == [
            "entry 6: column type differs from the entry",
            "entry 7: column type differs from the entry",
            "entry 20: leaf hash differs",
            "entry 21: leaf hash differs",
        ]


def test_a_truncated_file_is_refused_as_damaged(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(StoreDamaged):
        verified(path)
