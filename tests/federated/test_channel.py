import hashlib
import threading
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federated.channel import Channel, memory_pair
from federated.errors import (
    ConnectionLost,
    MalformedFrame,
    PeerAborted,
    ProtocolViolation,
)
from protos.concordat.v1.run_pb2 import Abort, Commitment, Frame, GroupSizes, Hello, Points


class Recorded:
    """A transport that plays a recording and keeps what is sent."""

    def __init__(self, *frames: bytes) -> None:
        self.frames = list(frames)
        self.sent: list[bytes] = []

    def send(self, frame: bytes, /) -> None:
        self.sent.append(frame)

    def receive(self) -> bytes:
        if not self.frames:
            raise ConnectionLost("The recording is over.", "Record more.")
        return self.frames.pop(0)

    def close(self) -> None:
        self.frames.clear()


def frame(**body: object) -> bytes:
    return Frame(**body).SerializeToString(deterministic=True)


def listening_to(*frames: bytes, max_frame: int = 1000) -> Channel:
    return Channel(Recorded(*frames), initiator=True, max_frame=max_frame)


def test_a_message_arrives_as_it_was_sent() -> None:
    bank, partner = memory_pair()
    bank.send(Hello(run="00ff", role="bank", job=b"{}"))
    assert partner.receive(Hello) == Hello(run="00ff", role="bank", job=b"{}")


def test_an_empty_message_keeps_its_type() -> None:
    bank, partner = memory_pair()
    bank.send(GroupSizes())
    assert partner.receive(GroupSizes) == GroupSizes()


def test_an_unexpected_frame_is_named() -> None:
    channel = listening_to(frame(points=Points(last=True)))
    with pytest.raises(ProtocolViolation, match="sent Points where the protocol expects Group"):
        channel.receive(GroupSizes)


@pytest.mark.parametrize(
    "data", [b"", b"\xff" * 9, b"\x0a\x7f", frame(points=Points(points=bytes(64)))[:-1]]
)
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedFrame):
        listening_to(data).receive(Points)


@given(st.binary(max_size=200))
def test_garbage_ends_in_a_numbered_error_or_a_message(data: bytes) -> None:
    with suppress(ProtocolViolation, PeerAborted):
        assert isinstance(listening_to(data).receive(Points), Points)


def test_a_frame_over_the_limit_is_neither_sent_nor_read() -> None:
    large = Points(points=bytes(1000))
    with pytest.raises(MalformedFrame, match="1000"):
        listening_to(frame(points=large)).receive(Points)
    transport = Recorded()
    with pytest.raises(MalformedFrame):
        Channel(transport, initiator=True, max_frame=1000).send(large)
    assert transport.sent == []


def test_room_is_what_fits_a_frame() -> None:
    transport = Recorded()
    channel = Channel(transport, initiator=True, max_frame=1000)
    channel.send(Points(points=bytes(channel.room), last=True))
    assert len(transport.sent[0]) <= 1000


def test_an_abort_ends_the_run_with_the_peers_reason() -> None:
    channel = listening_to(frame(abort=Abort(code="E402", message="The gate is shut.")))
    with pytest.raises(PeerAborted, match=r"\(E402\): The gate is shut\.") as caught:
        channel.receive(Points)
    assert caught.value.peer_code == "E402"


def test_an_aborts_words_are_cut_short_and_made_printable() -> None:
    hostile = Abort(code="../../etc", message="\x1b[2J\nok" + "x" * 10_000)
    with pytest.raises(PeerAborted) as caught:
        listening_to(frame(abort=hostile), max_frame=20_000).receive(Points)
    assert caught.value.peer_code == "E000"
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 400


def test_closing_one_end_ends_the_other() -> None:
    bank, partner = memory_pair()
    partner.send(Points(last=True))
    partner.close()
    assert bank.receive(Points).last  # what was sent before the close still arrives
    with pytest.raises(ConnectionLost):
        bank.receive(Points)
    with pytest.raises(ConnectionLost):
        bank.send(Points())


def test_closing_wakes_an_end_that_waits() -> None:
    bank, partner = memory_pair()
    threading.Timer(0.05, partner.close).start()
    with pytest.raises(ConnectionLost):
        bank.receive(Points)


def test_a_sender_that_waits_learns_why_the_peer_left() -> None:
    bank, partner = memory_pair(queued_frames=1)

    def leave() -> None:
        partner.abort(ProtocolViolation("Something was wrong."))
        partner.close()

    bank.send(Points())
    threading.Timer(0.05, leave).start()
    with pytest.raises(PeerAborted, match="Something was wrong"):
        bank.send(Points())


def test_a_reason_is_found_behind_what_was_not_yet_read() -> None:
    bank, partner = memory_pair()
    partner.send(Points())
    partner.abort(ProtocolViolation("Something was wrong."))
    partner.close()
    with pytest.raises(PeerAborted, match="Something was wrong"):
        bank.send(Points())


def test_an_abort_to_a_peer_that_left_is_no_error() -> None:
    bank, partner = memory_pair()
    partner.close()
    bank.abort(ProtocolViolation("Something was wrong."))


def test_bytes_are_counted_each_way() -> None:
    bank, partner = memory_pair()
    message = Points(points=bytes(32), last=True)
    bank.send(message)
    partner.receive(Points)
    assert bank.bytes_sent == partner.bytes_received == len(frame(points=message))
    assert bank.bytes_received == partner.bytes_sent == 0


def converse(*, pause: float = 0, last: bytes = b"") -> tuple[bytes, bytes]:
    bank, partner = memory_pair()
    bank.send(Points(points=bytes(32)))
    time.sleep(pause)
    bank.send(Points(last=True))
    partner.send(GroupSizes(sizes=[1, 2]))
    partner.receive(Points)
    partner.receive(Points)
    time.sleep(pause)
    bank.receive(GroupSizes)
    partner.send(Commitment(result=last))
    bank.receive(Commitment)
    return bank.transcript(), partner.transcript()


def test_both_ends_compute_the_same_transcript() -> None:
    bank, partner = converse()
    assert bank == partner
    assert len(bank) == 32


def test_the_transcript_does_not_depend_on_timing() -> None:
    assert converse() == converse(pause=0.02)


def test_the_transcript_depends_on_every_byte() -> None:
    assert converse(last=b"\x00") != converse(last=b"\x01")


def test_the_transcript_is_as_documented() -> None:
    hello, answer = Hello(run="ab"), Points(last=True)
    bank = Channel(Recorded(frame(points=answer)), initiator=True)
    bank.send(hello)
    bank.receive(Points)
    partner = Channel(Recorded(frame(hello=hello)), initiator=False)
    partner.receive(Hello)
    partner.send(answer)

    def one_way(data: bytes) -> bytes:
        return hashlib.sha256(len(data).to_bytes(8, "big") + data).digest()

    there, back = one_way(frame(hello=hello)), one_way(frame(points=answer))
    assert bank.transcript() == partner.transcript() == hashlib.sha256(there + back).digest()


def test_frame_boundaries_are_part_of_the_transcript() -> None:
    one, two = memory_pair()[0], memory_pair()[0]
    one.send(Points(points=b"ab"))
    one.send(Points(points=b"c"))
    two.send(Points(points=b"a"))
    two.send(Points(points=b"bc"))
    assert one.transcript() != two.transcript()


def test_the_direction_is_part_of_the_transcript() -> None:
    bank, partner = memory_pair()[0], memory_pair()[1]
    bank.send(Points(last=True))
    partner.send(Points(last=True))
    assert bank.transcript() != partner.transcript()


def test_what_follows_the_first_call_is_not_in_the_transcript() -> None:
    bank, partner = memory_pair()
    bank.send(Points(last=True))
    partner.receive(Points)
    before = bank.transcript(), partner.transcript()
    bank.send(Commitment(transcript=before[0]))
    partner.receive(Commitment)
    assert (bank.transcript(), partner.transcript()) == before
