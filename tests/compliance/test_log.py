import multiprocessing
import os
import signal
from datetime import UTC, datetime

import pytest
import rfc6962
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import DatabaseError

from compliance import merkle
from compliance.canonical import MAX_BYTES, canonical, parse
from compliance.errors import (
    DocumentTooLarge,
    InvalidProof,
    LogDamaged,
    MalformedNote,
    MalformedProof,
    NotInLog,
    UnverifiedNote,
)
from compliance.log import (
    PAGE,
    TILE,
    Log,
    checkpoints,
    commit_subtree,
    log_entries,
    log_nodes,
    subtree_leaves,
    subtree_nodes,
    subtree_proof,
    tree_root,
    tree_size,
)
from compliance.note import COSIGNATURE, VerifierKey, cosign
from compliance.proof import Proof
from compliance.signing import SigningKey
from compliance.store import open_store, read, write
from compliance.verify import verify_log

NOW = datetime(2026, 3, 1, 12, 30, 15, tzinfo=UTC)
LOG = Log("bank.example/log", SigningKey.generate())
WITNESS = SigningKey.generate()
WITNESS_KEY = VerifierKey("partner.example/witness", WITNESS.public, COSIGNATURE)


@pytest.fixture
def engine(store_url):
    return open_store(store_url, create=True)


def fill(engine, count):
    with write(engine) as conn:
        return LOG.append_many(conn, [("test", {"n": n}) for n in range(count)], time=NOW)


def leaves(conn):
    return [entry.leaf for entry in LOG.entries(conn)]


def test_an_entry_is_canonical_json_with_type_time_and_nonce(engine):
    with write(engine) as conn:
        assert LOG.append(conn, "run.intent", {"run": "r1", "n": 2**60}, time=NOW) == 0
        assert LOG.append(conn, "officer.read", {}, time=NOW) == 1
    with read(engine) as conn:
        first, second = LOG.entries(conn)
    body = parse(first.leaf)
    nonce = body.pop("nonce")
    assert len(bytes.fromhex(nonce)) == 16
    assert nonce != parse(second.leaf)["nonce"]
    assert body == {
        "type": "run.intent",
        "time": "2026-03-01T12:30:15Z",
        "run": "r1",
        "n": str(2**60),
    }
    assert (first.type, first.time, first.run) == ("run.intent", "2026-03-01T12:30:15Z", "r1")
    assert first.leaf_hash == merkle.leaf_hash(first.leaf)
    assert (second.index, second.type, second.run) == (1, "officer.read", None)


@pytest.mark.parametrize("name", ["type", "time", "nonce"])
def test_a_body_cannot_forge_what_the_log_adds(engine, name):
    with pytest.raises(ValueError, match="may not hold"), write(engine) as conn:
        LOG.append(conn, "test", {name: "x"}, time=NOW)
    with read(engine) as conn:
        assert tree_size(conn) == 0


def test_an_entry_that_takes_more_than_copying_is_written_all_the_same(engine):
    bodies = [{"text": 'a "quoted"\nline'}, {"é": 1.5}, {"plain": True}]
    with write(engine) as conn:
        LOG.append_many(conn, [("test", body) for body in bodies], time=NOW)
        LOG.checkpoint(conn)
    with read(engine) as conn:
        for body, entry in zip(bodies, LOG.entries(conn), strict=True):
            assert body.items() <= parse(entry.leaf).items()
        assert verify_log(conn, LOG.verifier).ok


def test_an_entry_may_be_no_larger_than_what_is_read(engine):
    with write(engine) as conn, pytest.raises(DocumentTooLarge):
        LOG.append(conn, "test", {"text": "a" * MAX_BYTES}, time=NOW)


def test_a_run_is_named_by_text(engine):
    with pytest.raises(ValueError, match="by text"), write(engine) as conn:
        LOG.append(conn, "test", {"run": 5}, time=NOW)


def test_a_log_that_lost_its_last_entry_is_not_continued(engine):
    fill(engine, 1 << TILE)
    with write(engine) as conn:
        conn.execute(delete(log_entries).where(log_entries.c.index == (1 << TILE) - 1))
    with pytest.raises(LogDamaged, match="are gone"), write(engine) as conn:
        LOG.append(conn, "test", {}, time=NOW)


def test_an_entry_is_rolled_back_with_its_transaction(engine):
    def append_and_fail():
        with write(engine) as conn:
            LOG.append(conn, "test", {}, time=NOW)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        append_and_fail()
    with read(engine) as conn:
        assert tree_size(conn) == 0


def test_a_transaction_goes_on_from_a_savepoint_it_rolled_back_to(engine):
    fill(engine, 3)
    with write(engine) as conn:
        LOG.append(conn, "test", {}, time=NOW)
        savepoint = conn.begin_nested()
        LOG.append_many(conn, [("test", {"n": 1})] * 2, time=NOW)
        LOG.checkpoint(conn)
        savepoint.rollback()
        LOG.append(conn, "test", {"n": 2}, time=NOW)
        checkpoint = LOG.checkpoint(conn)
        assert (checkpoint.size, checkpoint.root) == (5, rfc6962.mth(leaves(conn)))
    with read(engine) as conn:
        assert verify_log(conn, LOG.verifier).ok


def test_no_entry_is_appended_through_a_reader(engine):
    with pytest.raises(DatabaseError), engine.connect() as conn:
        LOG.append(conn, "test", {}, time=NOW)


def test_entries_are_read_in_ranges_across_pages(engine):
    fill(engine, PAGE + 10)
    with read(engine) as conn:
        assert [entry.index for entry in LOG.entries(conn)] == list(range(PAGE + 10))
        some = LOG.entries(conn, PAGE - 3, PAGE + 3)
        assert [entry.index for entry in some] == list(range(PAGE - 3, PAGE + 3))
        assert list(LOG.entries(conn, PAGE + 10)) == []


def test_roots_and_proofs_are_those_of_the_rfc(engine):
    for batch in (1, 1, 3, 8, 7):  # in several transactions, as it grows
        fill(engine, batch)
    with read(engine) as conn:
        stored = leaves(conn)
        for size in range(len(stored) + 1):
            assert tree_root(conn, size) == rfc6962.mth(stored[:size])
            for index in range(size):
                path = LOG.inclusion_proof(conn, index, size)
                assert path == rfc6962.path(index, stored[:size])
            for old in range(1, size + 1):
                proof = LOG.consistency_proof(conn, old, size)
                assert proof == rfc6962.proof(old, stored[:size])


def test_proofs_beyond_the_log_are_refused(engine):
    fill(engine, 4)
    with read(engine) as conn:
        for index, size in [(4, 4), (0, 5), (-1, 4), (0, 0), (4, 5), (0, 1 << 63), (3, 1 << 70)]:
            with pytest.raises(NotInLog):
                LOG.inclusion_proof(conn, index, size)
        for old, new in [(0, 5), (3, 2), (-1, 4), (4, 5), (5, 5), (4, (1 << 63) - 1), (4, 1 << 70)]:
            with pytest.raises(NotInLog):
                LOG.consistency_proof(conn, old, new)
        with pytest.raises(NotInLog):
            LOG.checkpoint_at(conn, 4)
        with pytest.raises(NotInLog):
            LOG.proof(conn, 0)


def test_the_empty_log_has_the_root_of_no_bytes(engine):
    with write(engine) as conn:
        assert LOG.head(conn) is None
        checkpoint = LOG.checkpoint(conn)
    assert (checkpoint.size, checkpoint.root) == (0, rfc6962.ROOTS[0])
    checkpoint.verify(LOG.verifier)


def test_a_checkpoint_is_signed_once_for_each_size(engine):
    fill(engine, 5)
    with write(engine) as conn:
        first = LOG.checkpoint(conn)
        assert LOG.checkpoint(conn) == first
        LOG.append(conn, "test", {}, time=NOW)
        second = LOG.checkpoint(conn)
        assert LOG.head(conn) == second
        assert LOG.checkpoint_at(conn, 5) == first
        assert first.root == rfc6962.mth(leaves(conn)[:5])
        assert (second.size, second.root) == (6, rfc6962.mth(leaves(conn)))
    second.verify(LOG.verifier)


@pytest.mark.parametrize(
    "change",
    [
        delete(log_entries).where(log_entries.c.index == 4),
        delete(log_entries).where(log_entries.c.index >= 3),
        update(log_entries).where(log_entries.c.index == 4).values(leaf_hash=bytes(32)),
        update(log_entries).where(log_entries.c.index == 4).values(leaf_hash=bytes(31)),
        update(checkpoints).values(note=b""),
    ],
)
def test_a_log_that_was_changed_is_not_signed_again(engine, change):
    fill(engine, 5)
    with write(engine) as conn:
        LOG.checkpoint(conn)
        conn.execute(change)
    with pytest.raises((LogDamaged, MalformedNote)), write(engine) as conn:
        if tree_size(conn) >= 5:
            LOG.append(conn, "test", {}, time=NOW)
        LOG.checkpoint(conn)


@pytest.mark.parametrize(
    "change",
    [
        update(log_nodes).where(log_nodes.c.level == 9).values(hash=bytes(32)),
        update(log_nodes).where(log_nodes.c.level == 9).values(hash=bytes(31)),
        delete(log_nodes).where(log_nodes.c.level == 9),
    ],
)
def test_a_log_whose_stored_tree_was_changed_is_not_signed_again(engine, change):
    fill(engine, 2 << TILE)
    with write(engine) as conn:
        LOG.checkpoint(conn)
        conn.execute(change)
    with pytest.raises(LogDamaged), write(engine) as conn:
        LOG.append(conn, "test", {}, time=NOW)
        LOG.checkpoint(conn)


def test_subtrees_of_whole_tiles_are_stored_and_no_others(engine):
    for batch in (5, (1 << TILE) - 5, 1, (2 << TILE) + 3):
        fill(engine, batch)
    with read(engine) as conn:
        stored = leaves(conn)
        rows = conn.execute(select(log_nodes).order_by(log_nodes.c.level, log_nodes.c.index)).all()
    expected = [(8, 0), (8, 1), (8, 2), (9, 0)]
    assert [tuple(row) for row in rows] == [
        (level, index, rfc6962.mth(stored[index << level : (index + 1) << level]))
        for level, index in expected
    ]


def test_proofs_across_tiles_are_those_of_the_rfc(engine):
    fill(engine, 3 * (1 << TILE) + 7)
    with read(engine) as conn:
        stored = leaves(conn)
        for size in (1, 255, 256, 257, 512, 600, len(stored)):
            assert tree_root(conn, size) == rfc6962.mth(stored[:size])
            for index in {0, 1, 127, 255, 256, 300, 511, 512, size - 1}:
                if index < size:
                    path = LOG.inclusion_proof(conn, index, size)
                    assert path == rfc6962.path(index, stored[:size])
                    proof = LOG.consistency_proof(conn, index + 1, size)
                    assert proof == rfc6962.proof(index + 1, stored[:size])


def test_postgresql_plans_what_proofs_read_once(postgresql_server):
    engine = open_store(postgresql_server.new_store(), create=True)
    fill(engine, 600)
    with read(engine) as conn:
        for index in range(20):
            LOG.inclusion_proof(conn, index, 600)
        query = "SELECT custom_plans FROM pg_prepared_statements WHERE strpos(statement, {!r}) > 0"
        plans = conn.exec_driver_sql(query.format("log_nodes")).scalars().all()
    assert plans == [5]  # each for itself; and from then on one for all


def test_a_proof_is_verified_offline(engine):
    fill(engine, 9)
    with write(engine) as conn:
        checkpoint = LOG.checkpoint(conn)
        LOG.add_cosignature(conn, 9, cosign(checkpoint.text, WITNESS_KEY.name, WITNESS, NOW))
        proof = LOG.proof(conn, 6)
        leaf = leaves(conn)[6]
    parsed = Proof.parse(proof.encode())
    assert parsed == proof
    parsed.verify(leaf, LOG.verifier, WITNESS_KEY)
    with pytest.raises(InvalidProof):
        parsed.verify(leaf + b" ", LOG.verifier)
    with pytest.raises(UnverifiedNote):
        parsed.verify(leaf, VerifierKey(LOG.origin, WITNESS.public))
    other = VerifierKey("other.example/witness", WITNESS.public, COSIGNATURE)
    with pytest.raises(UnverifiedNote):
        parsed.verify(leaf, LOG.verifier, other)


def test_the_form_of_a_proof(engine):
    with write(engine) as conn:
        LOG.append_many(conn, [("test", {}), ("test", {})], time=NOW)
        note = LOG.checkpoint(conn).encode().decode()
        proof = LOG.proof(conn, 0)
        sibling = Proof(0, (), LOG.checkpoint(conn), b"\0")
    lines = proof.encode().decode().split("\n")
    assert lines[:2] == ["c2sp.org/tlog-proof@v1", "index 0"]
    assert len(lines[2]) == 44
    assert lines[3] == ""
    assert "\n".join(lines[4:]) == note
    assert sibling.encode().startswith(b"c2sp.org/tlog-proof@v1\nextra AA==\nindex 0\n\nbank")
    assert Proof.parse(sibling.encode()) == sibling


@pytest.fixture
def proof(engine):
    fill(engine, 5)
    with write(engine) as conn:
        LOG.checkpoint(conn)
        return LOG.proof(conn, 2).encode()


def test_malformed_proofs_are_refused(proof):
    for changed in (
        b"",
        proof.replace(b"@v1", b"@v2"),
        proof.replace(b"index 2\n", b""),
        proof.replace(b"index 2", b"index 02"),
        proof.replace(b"index 2", b"index -1"),
        proof.replace(b"index 2", b"index 2\nextra AA=="),
        proof.replace(b"index 2", b"extra A\nindex 2"),
        proof.replace(b"index 2", b"index 2\nAAAA"),
        proof.replace(b"index 2", b"index 2\n" + b"\n".join(proof.split(b"\n")[2:3] * 64)),
        proof.replace(b"\n", b"\r\n"),
        proof.replace(b"\n\n", b"\n", 1),
        proof + b"\n" * 600_000,
    ):
        with pytest.raises((MalformedProof, MalformedNote)):
            Proof.parse(changed)


@given(data=st.binary() | st.text("\nc2sp.org/tlog-proof@v1 index0extra—A=").map(str.encode))
def test_garbage_is_no_proof(data):
    for candidate in (data, b"c2sp.org/tlog-proof@v1\n" + data):
        with pytest.raises((MalformedProof, MalformedNote)):
            Proof.parse(candidate)


def test_a_bulk_import_is_one_entry_and_every_leaf_provable(engine):
    rows = [canonical({"n": n}) for n in range(2 * PAGE + 5)]
    with write(engine) as conn:
        root = commit_subtree(conn, rows)
        assert commit_subtree(conn, rows) == root  # nothing is stored twice
        body = {"subtree": {"root": root.hex(), "size": len(rows)}}
        LOG.append(conn, "consent.import", body, time=NOW)
    assert root == rfc6962.mth(rows)
    with read(engine) as conn:
        for index in (0, 1, PAGE - 1, PAGE, PAGE + 4):
            size, proof = subtree_proof(conn, root, index)
            assert size == len(rows)
            merkle.verify_inclusion(merkle.leaf_hash(rows[index]), index, size, proof, root)
        for missing in (-1, len(rows)):
            with pytest.raises(NotInLog):
                subtree_proof(conn, root, missing)
        with pytest.raises(NotInLog):
            subtree_proof(conn, bytes(32), 0)
    with pytest.raises(ValueError, match="needs a leaf"), write(engine) as conn:
        commit_subtree(conn, [])


def test_a_sub_tree_that_was_changed_gives_no_valid_proof(engine):
    rows = [b"%d" % n for n in range(6)]
    with write(engine) as conn:
        root = commit_subtree(conn, rows)
        conn.execute(insert(subtree_leaves).values(root=root, index=6, leaf=b"6"))
        size, proof = subtree_proof(conn, root, 2)
    with pytest.raises(InvalidProof):
        merkle.verify_inclusion(merkle.leaf_hash(rows[2]), 2, size, proof, root)


@pytest.mark.parametrize(
    "change",
    [
        delete(subtree_nodes).where(subtree_nodes.c.level == 9),
        update(subtree_nodes).where(subtree_nodes.c.level == 9).values(hash=bytes(31)),
        delete(subtree_leaves).where(subtree_leaves.c.index == 3),
    ],
)
def test_a_sub_tree_that_lacks_a_hash_gives_no_proof(engine, change):
    rows = [b"%d" % n for n in range(4 << TILE)]
    with write(engine) as conn:
        root = commit_subtree(conn, rows)
        subtree_proof(conn, root, 5)
        subtree_proof(conn, root, 600)
        conn.execute(change)
        with pytest.raises(LogDamaged):
            subtree_proof(conn, root, 5)
            subtree_proof(conn, root, 600)


def append_repeatedly(url, name, count):
    engine = open_store(url, create=True)
    for n in range(count):
        with write(engine) as conn:
            LOG.append_many(conn, [("test", {"by": name, "n": n}), ("other", {})], time=NOW)


def test_two_processes_append_at_once(store_url):
    url = store_url
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=append_repeatedly, args=(url, name, 25)) for name in ("a", "b")
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    engine = open_store(url)
    with write(engine) as conn:
        LOG.checkpoint(conn)
        bodies = [parse(leaf) for leaf in leaves(conn)]
        assert verify_log(conn, LOG.verifier).findings == []
    assert len(bodies) == 100
    for name in ("a", "b"):
        assert [b["n"] for b in bodies if b.get("by") == name] == list(range(25))
    assert [body["type"] for body in bodies] == ["test", "other"] * 50


def append_and_acknowledge(url, acknowledged):
    engine = open_store(url, create=True)
    while True:
        with write(engine) as conn:
            index = LOG.append(conn, "test", {}, time=NOW)
        os.write(acknowledged.fileno(), b"%d\n" % index)


def test_what_was_acknowledged_survives_kill(store_url):
    url = store_url
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=append_and_acknowledge, args=(url, sending))
    process.start()
    sending.close()
    with os.fdopen(os.dup(receiving.fileno()), "rb") as acknowledged:
        for _ in range(20):
            acknowledged.readline()
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        lines = acknowledged.read().split(b"\n")[:-1]
    last = int(lines[-1]) if lines else 19
    with read(open_store(url)) as conn:
        assert last < tree_size(conn) <= last + 2
        assert verify_log(conn, LOG.verifier).findings == []
