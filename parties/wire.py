"""gRPC: how two nodes reach each other. Mutual TLS 1.3, partners known by authority and name."""

import json
import logging
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import grpc

from compliance.withdrawal import Acknowledgement
from federated.errors import ConnectionLost, MalformedFrame
from parties.errors import PeerRefused, PeerUnreachable, RunTooLong
from parties.identity import Identity
from protos.concordat.v1 import peer_pb2, peer_pb2_grpc
from protos.errors import ConcordatError

RUN_METHOD = "/concordat.v1.Peer/Run"
CALL_SECONDS = 30.0  # for a call that is not a run, and for a run's first frame
_QUEUED_FRAMES = 4
_POLL_SECONDS = 0.25
_GRACE_SECONDS = 3.0

_logger = logging.getLogger("concordat.wire")


def channel_options(frame_bytes: int) -> list[tuple[str, int]]:
    """gRPC channel arguments, the same on both ends."""
    limit = frame_bytes + (64 << 10)
    return [
        ("grpc.max_send_message_length", limit),
        ("grpc.max_receive_message_length", limit),
        ("grpc.max_metadata_size", 16 << 10),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.so_reuseport", 0),
    ]


class Cancellable(Protocol):
    def cancel(self) -> Any: ...


class StreamTransport:
    """One end of a `Run` stream, used by one thread. Its queues are bounded, so that a fast sender
    waits for a slow receiver.

    A thread reads one frame ahead: that is how a sender learns that the other side has gone.
    """

    def __init__(self, *, run_seconds: float, silence_seconds: float) -> None:
        self._incoming: queue.Queue[bytes] = queue.Queue(1)
        self._outgoing: queue.Queue[bytes | None] = queue.Queue(_QUEUED_FRAMES)
        self._silence_seconds = silence_seconds
        self.allow(run_seconds)
        self._interrupted = threading.Event()
        self._given_up = False
        self._finished = threading.Event()
        self._ended = threading.Event()  # nothing more will arrive
        self._reason: ConcordatError = _lost()  # why it ended
        self._call: Cancellable | None = None

    def attach(self, frames: Iterator[bytes], call: Cancellable) -> None:
        """Start: frames arrive from `frames`; `call` can be cancelled."""
        self._call = call
        threading.Thread(target=self._read, args=(frames,), daemon=True, name="run reader").start()

    def allow(self, run_seconds: float) -> None:
        """How long the whole run may take from now on."""
        self._run_seconds = run_seconds
        self._deadline = time.monotonic() + run_seconds

    def outgoing(self) -> Iterator[bytes]:
        """What gRPC sends, until this end is finished or the call is over."""
        while True:
            try:
                frame = self._outgoing.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                if self._ended.is_set():
                    return
                continue
            if frame is None:
                return
            yield frame

    def send(self, frame: bytes, /) -> None:
        started = time.monotonic()
        while not self._ended.is_set():
            self._keep_time(started)
            with suppress(queue.Full):
                return self._outgoing.put(frame, timeout=_POLL_SECONDS)
        raise self._reason

    def receive(self) -> bytes:
        started = time.monotonic()
        while True:
            last = self._ended.is_set() or self._given_up
            if not last:
                self._keep_time(started)
            with suppress(queue.Empty):
                return self._incoming.get(timeout=0 if last else _POLL_SECONDS)
            if last:
                raise self._reason

    def _keep_time(self, started: float) -> None:
        """Give up if whoever waits since `started` should wait no longer."""
        now = time.monotonic()
        if self._given_up:
            if now - started > _GRACE_SECONDS:
                raise self._reason
            return
        if self._interrupted.is_set():
            self._reason = _lost()
        elif now > self._deadline:
            self._reason = RunTooLong(
                f"The run was not over after {self._run_seconds:.0f} seconds.",
                "Ask the partner whether its node is slow; `limits.run_seconds` in config.yaml is "
                "how long a run may take.",
            )
        elif now - started > self._silence_seconds:
            self._reason = ConnectionLost(
                f"Nothing came or went for {self._silence_seconds:.0f} seconds.",
                "Ask the partner whether its node is busy or stuck, then run the job again.",
            )
        else:
            return
        self.give_up()
        raise self._reason

    def _read(self, frames: Iterator[bytes]) -> None:
        reason: ConcordatError = _lost()
        try:
            for frame in frames:
                self._keep(frame)
        except ConcordatError as error:
            reason = error
        except Exception as error:  # on a server gRPC raises a bare Exception when the call ends
            _logger.debug("a stream ended: %r", error)
        if not self._given_up:
            self._reason = reason
        self._ended.set()

    def _keep(self, frame: bytes) -> None:
        kept = False
        while not (kept or self._finished.is_set()):
            with suppress(queue.Full):
                self._incoming.put(frame, timeout=_POLL_SECONDS)
                kept = True

    def give_up(self) -> None:
        """Nothing is waited for any more; there is only time to say why."""
        self._given_up = True

    def interrupt(self) -> None:
        """From another thread: whoever sends or receives finds the connection lost."""
        self._interrupted.set()

    def finish(self) -> None:
        """Send what is queued, and let the other side end the call; or end it after a grace."""
        self._finished.set()
        with suppress(queue.Full):
            self._outgoing.put(None, timeout=_GRACE_SECONDS)
        if not self._ended.wait(_GRACE_SECONDS):
            self.close()

    def close(self) -> None:
        """End the call on both sides, at once."""
        self._finished.set()
        if self._call is not None:
            self._call.cancel()


def _lost() -> ConnectionLost:
    return ConnectionLost(
        "The connection to the partner's node ended in the middle of the run.",
        "Check that the partner's node is up, then run the job again.",
    )


class PeerClient:
    """A paired node's service, called over mutual TLS."""

    def __init__(self, name: str, channel: grpc.Channel, silence_seconds: float) -> None:
        self._name = name
        self._channel = channel
        self._silence_seconds = silence_seconds
        self._stub: Any = peer_pb2_grpc.PeerStub(channel)  # type: ignore[no-untyped-call]

    def pair(self, identity: Identity) -> Identity:
        reply = self._unary(self._stub.Pair, identity.to_message())
        return Identity.from_message(reply)

    def offer_agreement(self, envelope: bytes) -> bytes:
        request = peer_pb2.AgreementOffer(envelope=envelope)
        return bytes(self._unary(self._stub.OfferAgreement, request).envelope)

    def withdraw_rows(self, envelope: bytes) -> Acknowledgement:
        request = peer_pb2.WithdrawalNotice(envelope=envelope)
        reply = self._unary(self._stub.WithdrawRows, request)
        return Acknowledgement(reply.envelope, reply.entry, reply.proof)

    def add_checkpoint(self, body: bytes) -> tuple[int, bytes]:
        reply = self._unary(self._stub.AddCheckpoint, peer_pb2.AddCheckpointRequest(body=body))
        return reply.status, reply.body

    def announce_key(self, succession: bytes) -> str:
        """The fingerprint that the partner has pinned now."""
        request = peer_pb2.KeyAnnouncement(succession=succession)
        return str(self._unary(self._stub.AnnounceKey, request).fingerprint)

    def run(self, seconds: float) -> StreamTransport:
        """Open a run; frames travel as the bytes that were hashed."""
        transport = StreamTransport(run_seconds=seconds, silence_seconds=self._silence_seconds)
        method: Any = self._channel.stream_stream(RUN_METHOD)
        timeout = seconds + 2 * _GRACE_SECONDS  # the transport's own deadline comes first
        call = method(transport.outgoing(), timeout=timeout, wait_for_ready=False)
        transport.attach(_frames(call, self._name), call)
        return transport

    def _unary(self, method: Callable[..., Any], request: Any) -> Any:
        try:
            return method(request, timeout=CALL_SECONDS)
        except grpc.RpcError as error:
            raise _translate(error, self._name) from error


def _frames(call: Any, name: str) -> Iterator[bytes]:
    answered = False
    try:
        for frame in call:
            answered = True
            yield frame
    except grpc.RpcError as error:
        if not answered or call.code() == grpc.StatusCode.FAILED_PRECONDITION:
            raise _translate(error, name) from error
        if call.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise MalformedFrame("A frame was larger than one of the two nodes allows.") from error
        raise


def _translate(error: Any, name: str) -> ConcordatError:
    """A failed call in the user's words; the partner's are cut short and kept printable."""
    if error.code() == grpc.StatusCode.FAILED_PRECONDITION:
        try:
            fields = json.loads(error.details())
            message, code = str(fields["message"])[:500], str(fields["code"])
        except (ValueError, KeyError, TypeError, RecursionError):
            message, code = "it gave no reason", ""
        message = "".join(filter(str.isprintable, message))
        code = code if re.fullmatch(r"E[0-9]{3}", code) else "E699"
        return PeerRefused(
            f"{name} refused ({code}): {message}",
            f"docs/errors/{code}.md says what it means; the remedy is on {name}'s side or yours.",
        )
    return PeerUnreachable(
        f"{name}'s node did not answer ({error.code().name.lower()}).",
        f"Check that {name}'s node is serving, that its address is reachable from here, and that "
        "both nodes are still paired.",
    )


@contextmanager
def dial(
    peer: Identity,
    *,
    key_pem: bytes,
    certificate_pem: bytes,
    frame_bytes: int,
    silence_seconds: float,
) -> Iterator[PeerClient]:
    """Connect to a partner: its certificate must be from its pinned authority, in its name."""
    credentials = grpc.ssl_channel_credentials(
        peer.authority_pem.encode(), key_pem, certificate_pem
    )
    target = [("grpc.ssl_target_name_override", peer.name)]
    with grpc.secure_channel(
        peer.address, credentials, [*channel_options(frame_bytes), *target]
    ) as channel:
        yield PeerClient(peer.name, channel, silence_seconds)
