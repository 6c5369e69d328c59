import threading
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from compliance.errors import (
    LogDamaged,
    LogRolledBack,
    MalformedNote,
    MalformedProof,
    NotInLog,
    SplitView,
    UnverifiedNote,
    WitnessRefused,
)
from compliance.log import Log
from compliance.note import Checkpoint, Note, VerifierKey, cosign, sign
from compliance.signing import SigningKey
from compliance.store import open_store, read, write
from compliance.verify import verify_log
from compliance.witness import (
    MAX_REQUEST,
    TREE_SIZE,
    Answer,
    Request,
    Witness,
    cosigned_size,
    receive,
    request,
    witnessed,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LOG = Log("bank.example/log", SigningKey.generate())
OTHER_LOG = Log("other.example/log", SigningKey.generate())
WITNESS_KEY = SigningKey.generate()

# The example of c2sp.org/tlog-witness, section "add-checkpoint".
C2SP_REQUEST = """\
old 20852014
PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=
5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=
/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=

example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
— example.com/behind-the-sofa opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=
"""  # noqa: E501


@pytest.fixture
def ours(new_store):
    """The store of the log."""
    return open_store(new_store("ours"), create=True)


@pytest.fixture
def theirs(new_store):
    """The store of the witness."""
    return open_store(new_store("theirs"), create=True)


@pytest.fixture
def witness():
    return Witness("partner.example/witness", WITNESS_KEY, [LOG.verifier, OTHER_LOG.verifier])


def grow(engine, count, log=LOG):
    with write(engine) as conn:
        log.append_many(conn, [("test", {"n": n}) for n in range(count)], time=NOW)
        return log.checkpoint(conn)


def ask(engine, old, log=LOG):
    with read(engine) as conn:
        return request(conn, log, old)


def answer(engine, witness, body):
    body = body if isinstance(body, bytes) else body.encode()
    with write(engine) as conn:
        return witness.add_checkpoint(conn, body, NOW)


def seen(engine):
    with read(engine) as conn:
        return dict(conn.execute(select(witnessed.c.origin, witnessed.c.size)).all())


def test_the_example_of_the_specification():
    parsed = Request.parse(C2SP_REQUEST.encode())
    assert (parsed.old, len(parsed.proof), parsed.checkpoint.size) == (20852014, 4, 20852163)
    assert parsed.encode() == C2SP_REQUEST.encode()


def test_a_growing_log_is_cosigned_again_and_again(ours, theirs, witness):
    for count in (0, 1, 4, 3, 0, 8):
        checkpoint = grow(ours, count)
        with write(ours) as conn:
            sent = request(conn, LOG, cosigned_size(conn, witness.verifier))
            received = answer(theirs, witness, sent)
            assert received.status == 200
            assert receive(conn, LOG, witness.verifier, sent, received) is None
            LOG.head(conn).verify(LOG.verifier, witness.verifier)
        assert seen(theirs) == {LOG.origin: checkpoint.size}
    with read(ours) as conn:
        report = verify_log(conn, LOG.verifier, [witness.verifier])
    assert report.ok
    assert report.cosigned == {witness.name: 16}


def test_an_answer_is_lines_of_cosignatures(ours, theirs, witness):
    checkpoint = grow(ours, 2)
    received = answer(theirs, witness, ask(ours, 0))
    assert received.body.endswith(b"\n")
    note = Note.parse(checkpoint.text.encode() + b"\n" + received.body)
    note.verify(witness.verifier)
    assert int.from_bytes(note.signatures[0].value[:8]) == int(NOW.timestamp())


def test_an_unknown_log_is_404(ours, theirs, witness):
    stranger = Log("stranger.example/log", SigningKey.generate())
    grow(ours, 1, stranger)
    assert answer(theirs, witness, ask(ours, 0, stranger)).status == 404


def test_a_checkpoint_the_log_did_not_sign_is_403(ours, theirs, witness):
    checkpoint = grow(ours, 1)
    forger = SigningKey.generate()
    unsigned = Checkpoint(LOG.origin, 1, checkpoint.root)
    good = checkpoint.signatures[0]
    for line in (sign(unsigned.text, LOG.origin, forger), sign("other\n", LOG.origin, LOG.key)):
        sent = Request(0, (), unsigned.signed(line))
        assert answer(theirs, witness, sent).status == 403
    both = unsigned.signed(sign(unsigned.text, LOG.origin, forger), good)
    assert answer(theirs, witness, Request(0, (), both)).status == 200


def test_an_old_size_beyond_the_checkpoint_is_400(ours, theirs, witness):
    assert answer(theirs, witness, Request(3, (), grow(ours, 2))).status == 400


def test_another_old_size_is_409_with_the_size(ours, theirs, witness):
    grow(ours, 3)
    assert answer(theirs, witness, ask(ours, 0)).status == 200
    grow(ours, 3)
    for old in (0, 2, 4):
        assert answer(theirs, witness, ask(ours, old)) == Answer(409, b"3\n", TREE_SIZE)
    assert seen(theirs) == {LOG.origin: 3}


def test_a_bad_consistency_proof_is_422(ours, theirs, witness):
    grow(ours, 3)
    assert answer(theirs, witness, ask(ours, 0)).status == 200
    grow(ours, 4)
    good = ask(ours, 3)
    for proof in (
        (),
        good.proof[1:],
        (*good.proof, bytes(32)),
        (bytes(32), *good.proof[1:]),
        good.proof[::-1],
    ):
        assert answer(theirs, witness, Request(3, proof, good.checkpoint)).status == 422
    assert seen(theirs) == {LOG.origin: 3}
    assert answer(theirs, witness, good).status == 200


def test_a_proof_from_nothing_is_empty(ours, theirs, witness):
    sent = Request(0, (bytes(32),), grow(ours, 2))
    assert answer(theirs, witness, sent).status == 422


def test_two_trees_of_one_size_are_409(ours, theirs, witness):
    grow(ours, 3)
    assert answer(theirs, witness, ask(ours, 0)).status == 200
    fork = Checkpoint(LOG.origin, 3, bytes(32))
    fork = fork.signed(sign(fork.text, LOG.origin, LOG.key))
    refused = answer(theirs, witness, Request(3, (), fork))
    assert refused.status == 409
    assert refused.content_type != TREE_SIZE


def test_a_forged_empty_tree_is_refused(theirs, witness):
    empty = Checkpoint(LOG.origin, 0, bytes(32))
    empty = empty.signed(sign(empty.text, LOG.origin, LOG.key))
    assert answer(theirs, witness, Request(0, (), empty)).status == 409


def test_logs_do_not_mix(ours, theirs, witness, tmp_path):
    others = open_store(f"sqlite:///{tmp_path}/others.db", create=True)
    grow(ours, 3)
    grow(others, 5, OTHER_LOG)
    assert answer(theirs, witness, ask(ours, 0)).status == 200
    assert answer(theirs, witness, ask(others, 0, OTHER_LOG)).status == 200
    assert seen(theirs) == {LOG.origin: 3, OTHER_LOG.origin: 5}


def malformed(good):
    yield b""
    yield b"\n\n"
    yield good.replace(b"old ", b"new ")
    yield good.replace(b"old ", b"old  ")
    yield good.replace(b"old 3", b"old 03")
    yield good.replace(b"old 3", b"old -3")
    yield good.replace(b"old 3", b"old 9999999999999999999")
    yield good.replace(b"old 3\n", b"")
    yield good.replace(b"\n", b"\r\n")
    yield good.replace(b"old 3\n", b"old 3\nAAAA\n")
    yield good.replace(b"old 3\n", b"old 3\n!\n")
    yield good.replace(b"old 3\n", b"old 3\n" + b"A" * 43 + b"=\n" + (b"A" * 43 + b"=\n") * 63)
    yield good.replace(b"\n\n", b"\n", 1)
    yield good.rstrip(b"\n")
    yield good + b"\xff\n"
    yield good + b"\n" * MAX_REQUEST


def test_malformed_requests_are_400(ours, theirs, witness):
    grow(ours, 3)
    assert answer(theirs, witness, ask(ours, 0)).status == 200
    grow(ours, 4)
    good = ask(ours, 3).encode()
    for body in malformed(good):
        assert body != good
        assert answer(theirs, witness, body).status == 400
    assert answer(theirs, witness, good).status == 200


@given(st.binary() | st.text("old 0\nA=—b+/").map(str.encode))
def test_garbage_is_no_request(body):
    with pytest.raises((MalformedProof, MalformedNote)):
        Request.parse(body)


def test_no_changed_bit_is_cosigned(ours, theirs, witness):
    grow(ours, 2)
    assert answer(theirs, witness, ask(ours, 0)).status == 200
    grow(ours, 3)
    good = ask(ours, 2)
    body = good.encode()
    with write(theirs) as conn:
        for bit in range(0, len(body) * 8, 3):
            changed = bytearray(body)
            changed[bit // 8] ^= 1 << bit % 8
            assert witness.add_checkpoint(conn, bytes(changed), NOW).status != 200
    assert seen(theirs) == {LOG.origin: 2}


def test_nothing_is_recorded_when_the_transaction_fails(ours, theirs, witness):
    grow(ours, 2)
    body = ask(ours, 0).encode()

    def cosign_and_fail():
        with write(theirs) as conn:
            assert witness.add_checkpoint(conn, body, NOW).status == 200
            raise RuntimeError

    with pytest.raises(RuntimeError):
        cosign_and_fail()
    assert seen(theirs) == {}


def test_of_two_requests_at_once_only_one_extends_a_size(ours, theirs, witness):
    grow(ours, 2)
    assert answer(theirs, witness, ask(ours, 0)).status == 200
    bodies = []
    for _ in range(8):
        grow(ours, 1)
        bodies.append(ask(ours, 2).encode())
    statuses = []

    def submit(body):
        statuses.append(answer(theirs, witness, body).status)

    threads = [threading.Thread(target=submit, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] + [409] * 7


@pytest.mark.parametrize("change", [{"size": 0}, {"size": 1}, {"root": bytes(32)}, {"note": b""}])
def test_a_changed_record_of_the_witness_is_noticed(ours, theirs, witness, change):
    grow(ours, 2)
    assert answer(theirs, witness, ask(ours, 0)).status == 200
    with write(theirs) as conn:
        conn.execute(update(witnessed).values(change))
    with pytest.raises(LogDamaged):
        answer(theirs, witness, ask(ours, 2))


# The log's end


def take(engine, witness, sent, received):
    with write(engine) as conn:
        return receive(conn, LOG, witness.verifier, sent, received)


def test_a_log_without_checkpoint_has_nothing_to_send(ours):
    with pytest.raises(NotInLog):
        ask(ours, 0)


def test_a_log_that_lost_count_is_told_the_size(ours, theirs, witness):
    grow(ours, 3)
    answer(theirs, witness, ask(ours, 0))
    grow(ours, 2)
    sent = ask(ours, 0)
    old = take(ours, witness, sent, answer(theirs, witness, sent))
    assert old == 3
    sent = ask(ours, old)
    assert take(ours, witness, sent, answer(theirs, witness, sent)) is None


def test_a_store_rolled_back_to_an_old_copy_is_noticed(ours, theirs, witness, tmp_path):
    old_copy = open_store(f"sqlite:///{tmp_path}/copy.db", create=True)
    grow(old_copy, 2)
    grow(ours, 5)
    answer(theirs, witness, ask(ours, 0))
    sent = ask(old_copy, 0)
    old = take(old_copy, witness, sent, answer(theirs, witness, sent))
    assert old == 5
    with pytest.raises(LogRolledBack, match="has seen 5"):
        ask(old_copy, old)


def test_a_rewritten_log_is_a_split_view(ours, theirs, witness, tmp_path):
    rewritten = open_store(f"sqlite:///{tmp_path}/rewritten.db", create=True)
    for count in (3, 5):
        grow(rewritten, count)
        grow(ours, 3)
        if count == 3:
            answer(theirs, witness, ask(ours, 0))
        sent = ask(rewritten, 3)
        with pytest.raises(SplitView):
            take(rewritten, witness, sent, answer(theirs, witness, sent))


def test_an_answer_that_leads_nowhere_is_a_split_view(ours, witness):
    grow(ours, 3)
    sent = ask(ours, 3)
    for body in (b"3\n", b"", b"-1\n", b"\xff", b"9" * 5000):
        with pytest.raises(SplitView):
            take(ours, witness, sent, Answer(409, body))


@pytest.mark.parametrize("status", [0, 201, 400, 403, 404, 500])
def test_other_refusals_are_reported(ours, witness, status):
    grow(ours, 1)
    with pytest.raises(WitnessRefused, match=str(status)):
        take(ours, witness, ask(ours, 0), Answer(status, b""))


def test_a_false_cosignature_is_not_stored(ours, witness):
    checkpoint = grow(ours, 1)
    sent = ask(ours, 0)
    forger = SigningKey.generate()
    lines = [
        cosign(checkpoint.text, witness.name, forger, NOW),
        cosign("other\n", witness.name, WITNESS_KEY, NOW),
        sign(checkpoint.text, witness.name, WITNESS_KEY),
    ]
    bodies = [f"{line}\n".encode() for line in lines]
    for body in (*bodies, b"", b"\n", b"200 OK\n", bodies[0] + b"\n"):
        with pytest.raises((UnverifiedNote, MalformedNote)):
            take(ours, witness, sent, Answer(200, body))
    with read(ours) as conn:
        assert cosigned_size(conn, witness.verifier) == 0


def test_lines_of_other_witnesses_in_an_answer_are_ignored(ours, theirs, witness):
    checkpoint = grow(ours, 1)
    sent = ask(ours, 0)
    received = answer(theirs, witness, sent)
    other = cosign(checkpoint.text, "other.example/witness", SigningKey.generate(), NOW)
    take(ours, witness, sent, Answer(200, f"{other}\n".encode() + received.body))
    with read(ours) as conn:
        assert [line.name for line in LOG.head(conn).signatures] == [LOG.origin, witness.name]


def test_a_fresh_cosignature_replaces_the_earlier_one(ours, theirs, witness):
    grow(ours, 1)
    for old in (0, 1):
        sent = ask(ours, old)
        assert take(ours, witness, sent, answer(theirs, witness, sent)) is None
    with read(ours) as conn:
        assert len(LOG.head(conn).signatures) == 2


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_any_history_is_cosigned(tmp_path_factory, counts):
    folder = tmp_path_factory.mktemp("witness")
    ours, theirs = (
        open_store(f"sqlite:///{folder}/{name}.db", create=True) for name in ("ours", "theirs")
    )
    witness = Witness("w", WITNESS_KEY, [LOG.verifier])
    old = 0
    for count in counts:
        head = grow(ours, count)
        assert answer(theirs, witness, ask(ours, old)).status == 200
        old = head.size


def test_a_witness_has_a_verifier_key_of_its_kind(witness):
    assert VerifierKey.parse(str(witness.verifier)) == witness.verifier
