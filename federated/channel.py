"""The two ends of a run: typed frames over any transport, and the hash of all that was said.

A frame is hashed as the bytes that travelled. The transcript is

    SHA-256( SHA-256(frames initiator -> responder) || SHA-256(frames responder -> initiator) )

with every frame preceded by its length (8 bytes, big-endian). It takes in each frame sent and
received from the first one until `transcript` is first called, when the protocol has ended on
either side; what follows (commitments, signatures) speaks about the transcript and is not in it.
"""

import hashlib
import threading
from collections import deque
from contextlib import suppress
from typing import Protocol, TypeVar

from google.protobuf.message import DecodeError, Message

from federated.errors import ConnectionLost, MalformedFrame, PeerAborted, ProtocolViolation
from protos.concordat.v1.run_pb2 import Abort, Frame
from protos.errors import ConcordatError

MAX_FRAME = 4 << 20
_WRAPPING = 64  # bytes that a frame needs beside its message's longest field

_BODIES = {
    field.message_type: field.name for field in Frame.DESCRIPTOR.oneofs_by_name["body"].fields
}

M = TypeVar("M", bound=Message)


class Transport(Protocol):
    """Whole frames, in order, in both directions."""

    def send(self, frame: bytes, /) -> None:
        """May wait while the peer is slow. Raises ConnectionLost; then `receive` waits no more."""

    def receive(self) -> bytes:
        """Waits for the next frame. Raises ConnectionLost at the end or after the deadline."""

    def close(self) -> None: ...


class Channel:
    """One end of a run, used by one thread. `initiator` is the end that speaks first."""

    def __init__(
        self, transport: Transport, *, initiator: bool, max_frame: int = MAX_FRAME
    ) -> None:
        self._transport = transport
        self._initiator = initiator
        self.max_frame = max_frame
        self.bytes_sent = 0
        self.bytes_received = 0
        self._sent = hashlib.sha256()
        self._received = hashlib.sha256()
        self._transcript: bytes | None = None

    @property
    def room(self) -> int:
        """How many bytes of content a frame can carry."""
        return self.max_frame - _WRAPPING

    def send(self, message: Message) -> None:
        """Raises ConnectionLost, or PeerAborted if the peer said why it went."""
        frame = Frame()
        getattr(frame, _BODIES[message.DESCRIPTOR]).CopyFrom(message)
        data = frame.SerializeToString(deterministic=True)
        if len(data) > self.max_frame:
            raise MalformedFrame(
                f"{message.DESCRIPTOR.name} has {len(data)} bytes; "
                f"a frame may have {self.max_frame}."
            )
        try:
            self._transport.send(data)
        except ConnectionLost:
            self._raise_peer_abort()
            raise
        _absorb(self._sent, data)
        self.bytes_sent += len(data)

    def receive(self, expected: type[M]) -> M:
        """The next frame's body, which must be of the expected type.

        Raises MalformedFrame, ProtocolViolation, PeerAborted or ConnectionLost.
        """
        data = self._transport.receive()
        if len(data) > self.max_frame:
            raise MalformedFrame(
                f"The other side sent {len(data)} bytes; a frame may have {self.max_frame}."
            )
        _absorb(self._received, data)
        self.bytes_received += len(data)
        body = _parse(data)
        if not isinstance(body, expected):
            _raise_if_abort(body)
            raise ProtocolViolation(
                f"The other side sent {body.DESCRIPTOR.name} where the protocol expects "
                f"{expected.DESCRIPTOR.name}."
            )
        return body

    def transcript(self) -> bytes:
        """32 bytes, the same at both ends once the protocol has ended; fixed by the first call."""
        if self._transcript is None:
            ways = [self._sent.digest(), self._received.digest()]
            if not self._initiator:
                ways.reverse()
            self._transcript = hashlib.sha256(b"".join(ways)).digest()
        return self._transcript

    def abort(self, error: ConcordatError) -> None:
        """Tell the peer why this side ends the run, if it still listens."""
        with suppress(ConnectionLost, PeerAborted):
            self.send(Abort(code=error.code, message=error.message))

    def close(self) -> None:
        self._transport.close()

    def _raise_peer_abort(self) -> None:
        """A peer that goes away may have said why: its Abort is then the last unread frame."""
        with suppress(ConnectionLost, MalformedFrame):
            while True:
                _raise_if_abort(_parse(self._transport.receive()))


def _absorb(running: "hashlib._Hash", frame: bytes) -> None:
    running.update(len(frame).to_bytes(8, "big"))
    running.update(frame)


def _parse(data: bytes) -> Message:
    try:
        frame = Frame.FromString(data)
    except DecodeError:
        raise MalformedFrame("The other side sent bytes that are no frame.") from None
    body = frame.WhichOneof("body")
    if body is None:
        raise MalformedFrame("The other side sent a frame without a body.")
    message: Message = getattr(frame, body)
    return message


def _raise_if_abort(body: Message) -> None:
    if isinstance(body, Abort):
        raise PeerAborted(body.code, body.message)


class _Pipe:
    """One direction of a memory pair: a bounded queue of frames that either end can close."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._frames: deque[bytes] = deque()
        self._closed = False
        self._changed = threading.Condition()

    def put(self, frame: bytes) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._frames) < self._limit)
            if self._closed:
                raise _lost()
            self._frames.append(frame)
            self._changed.notify_all()

    def get(self) -> bytes:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or bool(self._frames))
            if not self._frames:
                raise _lost()
            self._changed.notify_all()
            return self._frames.popleft()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class MemoryTransport:
    """A transport within one process; what was sent before a close can still be received."""

    def __init__(self, outgoing: _Pipe, incoming: _Pipe) -> None:
        self._outgoing = outgoing
        self._incoming = incoming

    def send(self, frame: bytes, /) -> None:
        self._outgoing.put(frame)

    def receive(self) -> bytes:
        return self._incoming.get()

    def close(self) -> None:
        self._outgoing.close()
        self._incoming.close()


def memory_pair(*, queued_frames: int = 4, max_frame: int = MAX_FRAME) -> tuple[Channel, Channel]:
    """Initiator and responder in one process, for use by two threads."""
    there, back = _Pipe(queued_frames), _Pipe(queued_frames)
    return (
        Channel(MemoryTransport(there, back), initiator=True, max_frame=max_frame),
        Channel(MemoryTransport(back, there), initiator=False, max_frame=max_frame),
    )


def _lost() -> ConnectionLost:
    return ConnectionLost(
        "The connection to the other side ended in the middle of the run.",
        "Check that the other node is running, then start the job again.",
    )
