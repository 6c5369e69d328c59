"""Peers that send what the protocol does not allow, too much, too little, or nothing at all.

The nodes last for the whole module: each attack ends with a numbered error on record, and the next
one finds them at work.
"""

import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from ready import Watch, log_of, run, run_threads, until
from rogue import Change, Rogue, as_bank, as_partner, cut, drip, edit, replace, stall, twice, vanish

from compliance.note import Checkpoint, sign
from compliance.signing import SigningKey
from parties import audits, server
from parties.node import Node
from protos.concordat.v1.run_pb2 import Frame, GroupSizes, Points, ReleasedSums
from protos.errors import ConcordatError

Nodes = tuple[Node, Node]

BOTH = pytest.mark.parametrize("attacker", ["bank", "shop"])


def in_turn(cases: Iterable[str]) -> pytest.MarkDecorator:
    """Each case from one side, where both check with the same code."""
    turns = [(case, ("bank", "shop")[i % 2]) for i, case in enumerate(cases)]
    return pytest.mark.parametrize(("case", "attacker"), turns)


STEPS = ["inputs", "signature", "ready", "points", "commitment"]


@pytest.fixture(autouse=True)
def quiet(lasting: Nodes) -> Iterator[None]:
    """No attack's threads live on into the next test."""
    yield
    until(lambda: not run_threads())


def attack(
    nodes: Nodes,
    attacker: str,
    step: str,
    change: Change,
    kind: str = "overlap",
    *,
    number: int = 1,
) -> dict[str, Any]:
    """What the other side's record says of a run whose frames of a kind were tampered with."""
    bank, shop = nodes
    victim = shop if attacker == "bank" else bank
    rogue = Rogue(step, change, number=number)
    watch = Watch(victim)
    with as_bank(bank, rogue) if attacker == "bank" else as_partner(rogue):
        with suppress(ConcordatError):
            run(bank, kind)
        (found,) = watch.ended()
    assert rogue.struck
    assert found["state"] in {"failed", "refused"}
    assert not {"result", "result_file", "receipt_file"} & found["report"].keys()
    assert not list(victim.home.run_folder(found["id"]).iterdir())
    types = [entry["type"] for entry in log_of(victim, found["id"])]
    assert "run.completion" not in types
    assert types[-1:] in ([], ["run.ended"])
    return found


def code_of(found: dict[str, Any]) -> str:
    return str(found["report"]["error"]["code"])


# The greeting


HELLO = {
    "another version": (edit(protocol_version=2), "E615"),
    "another agreement": (edit(agreement_digest=bytes(32)), "E201"),
    "no agreement": (edit(agreement_digest=b""), "E201"),
    "another suite": (edit(suite="SM2-SM3"), "E201"),
    "the other's role": (
        edit(role=lambda role: "partner" if role == "bank" else "bank"),
        "E201",
    ),
    "another name": (edit(party="telco"), "E201"),
    "another key": (edit(signing_key=bytes(range(32))), "E201"),
    "a clock far ahead": (edit(time="2126-01-01T00:00:00Z"), "E201"),
    "a clock that stands still": (edit(time="2026-01-01T00:00:00Z"), "E201"),
    "no time": (edit(time="now"), "E201"),
    "a version as long as a book": (edit(code_version="1" * 10_000), "E201"),
}


@BOTH
@pytest.mark.parametrize("case", HELLO)
def test_a_false_greeting(lasting: Nodes, attacker: str, case: str) -> None:
    change, code = HELLO[case]
    found = attack(lasting, attacker, "hello", change)
    assert code_of(found) == code
    assert not log_of(lasting[1 if attacker == "bank" else 0], found["id"])[:-1]


@pytest.mark.parametrize(
    ("document", "code"),
    [
        (b"", "E500"),
        (b"\xff" * 40, "E500"),
        (b'{"job": "overlap"}', "E500"),
        (b"{}", "E302"),
        (b'{"agreement":"offers","job":"train","purpose":"credit-offer"}', "E302"),
        (b'{"agreement":"another","job":"overlap","purpose":"credit-offer"}', "E304"),
        (b'{"agreement":"offers","job":"overlap","purpose":"advertising"}', "E310"),
    ],
)
def test_a_job_that_is_none_or_not_allowed(lasting: Nodes, document: bytes, code: str) -> None:
    found = attack(lasting, "bank", "hello", edit(job=document))
    assert code_of(found) == code
    assert found["state"] == ("refused" if code.startswith("E3") else "failed")


def unrecorded(nodes: Nodes, change: Change, caplog: pytest.LogCaptureFixture) -> str:
    """What the partner's own log says of a greeting that names no new run."""
    bank, shop = nodes
    caplog.set_level("INFO", logger="concordat.run")
    watch = Watch(shop)
    with as_bank(bank, Rogue("hello", change)), pytest.raises(ConcordatError):
        run(bank, "overlap")
    assert not watch.new()
    said = [record.getMessage() for record in caplog.records if record.name == "concordat.run"]
    (message,) = [text for text in said if text.startswith("a run with bank ended: ")]
    return message.removeprefix("a run with bank ended: ")[:4]


@pytest.mark.parametrize("name", ["", "0" * 31, "g" * 32, "../../../etc", "0" * 31 + "\n"])
def test_a_run_without_a_proper_name(
    lasting: Nodes, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    folders = set((lasting[1].home.path / "runs").iterdir())
    assert unrecorded(lasting, edit(run=name), caplog) == "E201"
    assert set((lasting[1].home.path / "runs").iterdir()) == folders


def test_a_replayed_run(lasting: Nodes, caplog: pytest.LogCaptureFixture) -> None:
    bank, shop = lasting
    name = run(bank, "overlap")["run"]
    until(lambda: shop.find_run(name)["ended_at"])
    before = shop.find_run(name), log_of(shop, name)
    assert unrecorded(lasting, edit(run=name), caplog) == "E201"
    assert (shop.find_run(name), log_of(shop, name)) == before


GARBAGE = {
    "nothing": (replace(b""), "E202"),
    "garbage": (replace(b"\xff" * 100), "E202"),
    "random bytes": (replace(secrets.token_bytes(1000)), "E20"),
    "a cut frame": (cut, "E202"),
    "an unknown kind": (replace(b"\xfa\x07\x00"), "E202"),
    "a frame of another kind": (replace(Frame(group_sizes=GroupSizes(sizes=[1, 2]))), "E201"),
    "a frame too long": (replace(Frame(points=Points(points=bytes(4 << 20)))), "E202"),
}


@pytest.mark.parametrize("case", GARBAGE)
def test_garbage_instead_of_a_greeting(
    lasting: Nodes, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    change, code = GARBAGE[case]
    assert unrecorded(lasting, change, caplog).startswith(code)


# Each step


@BOTH
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("case", ["a cut frame", "a frame of another kind"])
def test_garbage_at_each_step(lasting: Nodes, attacker: str, step: str, case: str) -> None:
    change, code = GARBAGE[case]
    assert code_of(attack(lasting, attacker, step, change)).startswith(code)


@BOTH
@pytest.mark.parametrize("step", ["hello", *STEPS])
def test_a_frame_that_comes_twice(lasting: Nodes, attacker: str, step: str) -> None:
    assert code_of(attack(lasting, attacker, step, twice)) == "E201"


@BOTH
def test_frames_in_another_order(lasting: Nodes, attacker: str) -> None:
    held: list[Frame] = []

    def hold(frame: Frame) -> list[Frame]:
        held.append(frame)
        return []

    def let_go(frame: Frame) -> list[Frame]:
        return [frame, *held]

    class Reordering(Rogue):
        def __call__(self, frame: Frame) -> Iterable[Frame | bytes]:
            kind = frame.WhichOneof("body")
            self.struck = True
            return {"inputs": hold, "signature": let_go}.get(kind, lambda same: [same])(frame)

    bank, shop = lasting
    victim = shop if attacker == "bank" else bank
    watch = Watch(victim)
    rogue = Reordering("", hold)
    with as_bank(bank, rogue) if attacker == "bank" else as_partner(rogue):
        with suppress(ConcordatError):
            run(bank, "overlap")
        (found,) = watch.ended()
    assert code_of(found) == "E201"


@BOTH
@pytest.mark.parametrize("step", ["hello", *STEPS])
def test_a_peer_that_vanishes(lasting: Nodes, attacker: str, step: str) -> None:
    if attacker == "bank" and step == "hello":
        return  # then there is no run
    assert code_of(attack(lasting, attacker, step, vanish)) in {"E208", "E612"}


@pytest.mark.parametrize(("attacker", "step"), [("bank", "points"), ("shop", "inputs")])
def test_a_peer_that_stalls(
    lasting: Nodes, attacker: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = lasting[1 if attacker == "bank" else 0]
    monkeypatch.setattr(victim.config.limits, "silence_seconds", 0.5)
    found = attack(lasting, attacker, step, stall(1.5))
    assert code_of(found) == "E208"
    assert "Nothing came" in found["report"]["error"]["message"]


@BOTH
def test_a_peer_that_never_comes_to_an_end(
    lasting: Nodes, attacker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = lasting[1 if attacker == "bank" else 0]
    monkeypatch.setattr(victim.config.limits, "run_seconds", 1.5)
    assert code_of(attack(lasting, attacker, "points", drip(0.1))) == "E629"


def test_a_peer_that_opens_a_run_and_says_nothing(
    lasting: Nodes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bank, shop = lasting
    monkeypatch.setattr(server, "CALL_SECONDS", 0.5)
    caplog.set_level("INFO", logger="concordat.run")
    with bank.dial(shop.identity) as client:
        assert b"E629" in client.run(20).receive()
    until(lambda: "E629" in caplog.text)


# Inputs and the intent


def by_another_key(text: str) -> str:
    """The same tree head, signed by another key in the log's name."""
    head = Checkpoint.parse(text.encode())
    bare = Checkpoint(head.origin, head.size, head.root)
    return bare.signed(sign(bare.text, head.origin, SigningKey.generate())).encode().decode()


def of_another_log(text: str) -> str:
    """A checkpoint of a log that nobody here knows, properly signed."""
    bare = Checkpoint("telco.concordat/log", 7, bytes(32))
    return bare.signed(sign(bare.text, bare.origin, SigningKey.generate())).encode().decode()


INPUTS = {
    "a size that is not the checkpoint's": (edit(log_size=lambda size: size + 1), "E201"),
    "a root that is not the checkpoint's": (edit(log_root=bytes(32)), "E201"),
    "a log that is not the checkpoint's": (edit(log_origin="telco.concordat/log"), "E201"),
    "a checkpoint by another key": (edit(log_checkpoint=by_another_key), "E511"),
    "another log's checkpoint": (edit(log_checkpoint=of_another_log), "E511"),
    "no checkpoint": (edit(log_checkpoint=""), "E510"),
    "a root that is none": (edit(root=b"short"), "E201"),
    "a root that was not signed": (edit(root=bytes(32)), "E503"),
    "a size that was not signed": (edit(size=lambda size: size + 1), "E503"),
    "nobody": (edit(size=0), "E201"),
    "everybody": (edit(size=2**64 - 1), "E626"),
}


@in_turn(INPUTS)
def test_false_inputs(lasting: Nodes, attacker: str, case: str) -> None:
    change, code = INPUTS[case]
    found = attack(lasting, attacker, "inputs", change)
    assert code_of(found) == code
    victim = lasting[1 if attacker == "bank" else 0]
    assert [entry["type"] for entry in log_of(victim, found["id"])] == ["run.ended"]


SIGNATURES = {
    "no signature": (edit(signature=b""), "E503"),
    "a false signature": (edit(signature=bytes(64)), "E503"),
    "a signature as long as a book": (edit(signature=bytes(1 << 20)), "E503"),
    "of another statement": (edit(statement="completion"), "E201"),
}


@in_turn(SIGNATURES)
def test_an_intent_that_is_not_signed(lasting: Nodes, attacker: str, case: str) -> None:
    change, code = SIGNATURES[case]
    assert code_of(attack(lasting, attacker, "signature", change)) == code


@BOTH
def test_a_completion_that_is_not_signed(lasting: Nodes, attacker: str) -> None:
    found = attack(lasting, attacker, "signature", edit(signature=bytes(64)), number=2)
    assert code_of(found) == "E503"


@BOTH
def test_ready_for_something_else(lasting: Nodes, attacker: str) -> None:
    assert code_of(attack(lasting, attacker, "ready", edit(statement="completion"))) == "E201"


@BOTH
def test_another_transcript(lasting: Nodes, attacker: str) -> None:
    assert code_of(attack(lasting, attacker, "commitment", edit(transcript=bytes(32)))) == "E207"


@pytest.mark.parametrize(
    "change", [edit(result=b""), edit(time="now"), edit(time="2126-01-01T00:00:00Z")]
)
def test_a_commitment_that_is_none(lasting: Nodes, change: Change) -> None:
    assert code_of(attack(lasting, "bank", "commitment", change)) == "E201"


# Points and ciphertexts


def first_point(point: bytes) -> Change:
    return edit(points=lambda points: point + points[32:])


P = 2**255 - 19
ORDER_8 = 39382357235489614581723060781553021112529911719440698176882885853963445705823
POINTS = {
    "zero": (first_point(bytes(32)), "E203"),
    "of order four": (first_point((1).to_bytes(32, "little")), "E203"),
    "of order eight": (first_point(ORDER_8.to_bytes(32, "little")), "E203"),
    "not canonical": (first_point((P + 9).to_bytes(32, "little")), "E203"),
    "with its top bit set": (first_point((2**255 + 9).to_bytes(32, "little")), "E203"),
    "repeated": (edit(points=lambda points: points[32:64] + points[32:]), "E203"),
    "too few": (edit(points=lambda points: points[32:]), "E201"),
    "too many": (edit(points=lambda points: points + points[:32]), "E201"),
    "none": (edit(points=b""), "E201"),
    "not whole": (edit(points=lambda points: points[1:]), "E201"),
    "without end": (edit(last=False), "E201"),
}


@pytest.mark.parametrize("case", POINTS)
def test_false_points_from_the_bank(lasting: Nodes, case: str) -> None:
    change, code = POINTS[case]
    assert code_of(attack(lasting, "bank", "points", change)) == code


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("case", ["zero", "repeated", "too few"])
def test_false_points_from_the_partner(lasting: Nodes, case: str, number: int) -> None:
    """In the bank's own points, answered, or in the partner's."""
    change, code = POINTS[case]
    assert code_of(attack(lasting, "shop", "points", change, number=number)) == code


def first_ciphertext(nodes: Nodes, value: Callable[[int], int]) -> Change:
    """In place of the first one: a number made from the partner's modulus."""
    modulus = int.from_bytes(nodes[1].paillier_key(2048).public.modulus, "little")
    false = value(modulus).to_bytes(512, "little")
    return edit(ciphertexts=lambda data: false + data[512:])


@pytest.mark.parametrize(
    ("attacker", "step", "value"),
    [
        ("bank", "masked_sums", lambda n: 0),
        ("bank", "masked_sums", lambda n: n * n),
        ("shop", "encrypted_rows", lambda n: n),
    ],
    ids=["zero", "too large", "not coprime"],
)
def test_false_ciphertexts(
    lasting: Nodes, attacker: str, step: str, value: Callable[[int], int]
) -> None:
    change = first_ciphertext(lasting, value)
    assert code_of(attack(lasting, attacker, step, change, "insight")) == "E204"


def sizes(*values: int) -> Change:
    return replace(Frame(group_sizes=GroupSizes(sizes=values)))


INSIGHT = {
    "a group below the minimum": ("bank", "group_sizes", sizes(100, 9), "E206"),
    "groups of more than there are": ("bank", "group_sizes", sizes(60, 2**63), "E201"),
    "too few sums": ("bank", "masked_sums", edit(ciphertexts=lambda data: data[512:]), "E201"),
    "a modulus that is none": ("shop", "hello", edit(paillier_modulus=b"\x02"), "E205"),
    "a modulus without a proof": ("shop", "hello", edit(paillier_proof=b""), "E205"),
    "too few rows": (
        "shop",
        "encrypted_rows",
        edit(points=lambda data: data[32:]),
        "E201",
    ),
    "no answers": (
        "shop",
        "released_sums",
        replace(Frame(released_sums=ReleasedSums(last=True))),
        "E201",
    ),
}


@pytest.mark.parametrize("case", INSIGHT)
def test_a_false_part_in_an_insight(lasting: Nodes, case: str) -> None:
    attacker, step, change, code = INSIGHT[case]
    assert code_of(attack(lasting, attacker, step, change, "insight")) == code


def test_an_answer_that_does_not_fit_what_was_counted(lasting: Nodes) -> None:
    def lie(frame: Frame) -> list[Frame]:
        frame.released_sums.groups[0].count += 1
        return [frame]

    assert code_of(attack(lasting, "shop", "released_sums", lie, "insight")) == "E207"


# After all that


def test_both_nodes_are_as_good_as_new(lasting: Nodes) -> None:
    assert run(lasting[0], "insight")["state"] == "completed"
    for node in lasting:
        verdict, not_asked = audits.verify(node)
        assert verdict.ok, verdict.report.findings
        assert not not_asked
