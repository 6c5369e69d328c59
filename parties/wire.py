"""gRPC: how two nodes reach each other. Mutual TLS 1.3, partners known by authority and name."""

import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import grpc

from federated.errors import ConnectionLost
from parties.errors import PeerRefused, PeerUnreachable
from parties.identity import Identity
from protos.concordat.v1 import peer_pb2, peer_pb2_grpc
from protos.errors import ConcordatError

RUN_METHOD = "/concordat.v1.Peer/Run"
_QUEUED_FRAMES = 4
_POLL_SECONDS = 0.25
_GRACE_SECONDS = 3.0


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
    """One end of a `Run` stream: frames out through a bounded queue, frames in from an iterator.

    The queue makes a fast sender wait for a slow receiver, so memory stays bounded.
    """

    def __init__(self, silence_seconds: float) -> None:
        self._outgoing: queue.Queue[bytes | None] = queue.Queue(_QUEUED_FRAMES)
        self._closed = threading.Event()
        self._silence_seconds = silence_seconds
        self._waiting_since: float | None = None
        self._silent = False
        self._interrupted = False
        self._incoming: Iterator[bytes] = iter(())
        self._call: Cancellable | None = None

    def attach(self, incoming: Iterator[bytes], call: Cancellable) -> None:
        """Start: frames arrive from `incoming`; `call` can be cancelled when the peer is silent."""
        self._incoming = incoming
        self._call = call
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self._closed.wait(1.0):
            since = self._waiting_since
            if since is not None and time.monotonic() - since > self._silence_seconds:
                self._silent = True
                self.cancel()

    def outgoing(self) -> Iterator[bytes]:
        """What gRPC sends, until this end is finished or closed."""
        while not self._closed.is_set():
            try:
                frame = self._outgoing.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue
            if frame is None:
                return
            yield frame

    def send(self, frame: bytes, /) -> None:
        while not (self._closed.is_set() or self._interrupted):
            try:
                self._outgoing.put(frame, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return
        raise self._lost()

    def receive(self) -> bytes:
        self._waiting_since = time.monotonic()
        try:
            return next(self._incoming)
        except ConcordatError:
            raise
        except Exception as error:
            # The end of the stream, an RpcError, or, on a server, gRPC's bare Exception.
            raise self._lost() from error
        finally:
            self._waiting_since = None

    def _lost(self) -> ConnectionLost:
        if self._silent:
            return ConnectionLost(
                f"The partner's node said nothing for {self._silence_seconds:.0f} seconds.",
                "Ask the partner whether its node is busy or stuck, then run the job again.",
            )
        return ConnectionLost(
            "The connection to the partner's node ended in the middle of the run.",
            "Check that the partner's node is up, then run the job again.",
        )

    def interrupt(self, frame: bytes) -> None:
        """From another thread: say a last frame, and end the call soon after."""
        self._interrupted = True
        with suppress(queue.Full):
            self._outgoing.put(frame, timeout=_GRACE_SECONDS)
            self._outgoing.put(None, timeout=_GRACE_SECONDS)
        self._cancel_after_grace()

    def finish(self) -> None:
        """Send what is queued, and let the other side end the call."""
        grace = self._cancel_after_grace()
        with suppress(queue.Full):
            self._outgoing.put(None, timeout=_GRACE_SECONDS)
        with suppress(Exception):  # whatever still comes, or goes wrong, changes nothing now
            for _ in self._incoming:
                pass
        grace.cancel()
        self.close()

    def close(self) -> None:
        self._closed.set()

    def cancel(self) -> None:
        """End the call on both sides, at once."""
        self.close()
        if self._call is not None:
            self._call.cancel()

    def _cancel_after_grace(self) -> threading.Timer:
        timer = threading.Timer(_GRACE_SECONDS, self.cancel)
        timer.daemon = True
        timer.start()
        return timer


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

    def add_checkpoint(self, body: bytes) -> tuple[int, bytes]:
        reply = self._unary(self._stub.AddCheckpoint, peer_pb2.AddCheckpointRequest(body=body))
        return reply.status, reply.body

    def run(self, seconds: float) -> StreamTransport:
        """Open a run; frames travel as the bytes that were hashed."""
        transport = StreamTransport(self._silence_seconds)
        method: Any = self._channel.stream_stream(RUN_METHOD)
        call = method(transport.outgoing(), timeout=seconds, wait_for_ready=False)
        transport.attach(_frames(call, self._name), call)
        return transport

    def _unary(self, method: Callable[..., Any], request: Any) -> Any:
        try:
            return method(request, timeout=30)
        except grpc.RpcError as error:
            raise _translate(error, self._name) from error


def _frames(call: Any, name: str) -> Iterator[bytes]:
    try:
        yield from call
    except grpc.RpcError as error:
        if call.code() == grpc.StatusCode.UNAVAILABLE or call.details():
            raise _translate(error, name) from error
        raise


def _translate(error: Any, name: str) -> ConcordatError:
    """A failed call in the user's words."""
    if error.code() == grpc.StatusCode.FAILED_PRECONDITION:
        try:
            fields = json.loads(error.details())
            message, code = str(fields["message"])[:500], str(fields["code"])[:8]
        except (ValueError, KeyError, TypeError):
            message, code = "it gave no reason", "E699"
        return PeerRefused(
            f"{name} refused ({code}): {message}",
            f"docs/errors/{code}.md says what it means; the remedy is on {name}'s side or yours.",
        )
    if error.code() == grpc.StatusCode.CANCELLED:
        return ConnectionLost("The call was cancelled.", "Run it again when both sides are ready.")
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
