"""The serving node: the peer service over mutual TLS, the admin service on a Unix socket."""

import json
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from parties import (
    agreements,
    courier,
    pairing,
    periods,
    rotation,
    session,
    withdrawals,
    witnessing,
)
from parties.admin import AdminService, ping
from parties.errors import AlreadyServing, InternalError, PortBusy, TooManyCalls
from parties.files import write_private
from parties.identity import INVITATION, Identity, refused
from parties.node import Node
from parties.peers import Caller, authenticate
from parties.wire import CALL_SECONDS, RUN_METHOD, StreamTransport, channel_options
from protos.concordat.v1 import admin_pb2_grpc, peer_pb2
from protos.errors import ConcordatError

_HANDLERS = 32
_QUEUED_CALLS = 32  # beyond those that are being answered; more are refused
_STOP_SECONDS = 5.0
_DAY_SECONDS = 86_400.0

HEALTH_SERVICE = "grpc.health.v1.Health"


class PeerService:
    """What a partner may call. Every call is answered for the caller's certificate, or refused."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._lock = threading.Lock()
        self._open: Counter[str] = Counter()  # calls being answered, by caller

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """`Run` passes bytes through: a frame is hashed as it travelled, not as it is parsed."""

        def unary(method: Callable[[Any, Caller], Any], request: Any, reply: Any) -> Any:
            """As a stream of one message, so that the wait for it is ours to limit."""

            def answer(messages: Iterator[Any], context: grpc.ServicerContext) -> Any:
                with _answering(context, self._node), self._admitted(context) as caller:
                    return method(_first(messages, context), caller)

            return grpc.stream_unary_rpc_method_handler(
                answer,
                request_deserializer=request.FromString,
                response_serializer=reply.SerializeToString,
            )

        service, run = RUN_METHOD.strip("/").split("/")
        peer = {
            "Pair": unary(self.pair, peer_pb2.Identity, peer_pb2.Identity),
            "OfferAgreement": unary(
                self.offer_agreement, peer_pb2.AgreementOffer, peer_pb2.AgreementReply
            ),
            "AddCheckpoint": unary(
                self.add_checkpoint, peer_pb2.AddCheckpointRequest, peer_pb2.AddCheckpointReply
            ),
            "WithdrawRows": unary(
                self.withdraw_rows, peer_pb2.WithdrawalNotice, peer_pb2.WithdrawalAcknowledgement
            ),
            "AnnounceKey": unary(
                self.announce_key, peer_pb2.KeyAnnouncement, peer_pb2.KeyAcknowledgement
            ),
            run: grpc.stream_stream_rpc_method_handler(self.run),
        }
        check = unary(
            self.check_health, health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
        )
        return [
            grpc.method_handlers_generic_handler(service, peer),
            grpc.method_handlers_generic_handler(HEALTH_SERVICE, {"Check": check}),
        ]

    @contextmanager
    def _admitted(self, context: grpc.ServicerContext) -> Iterator[Caller]:
        """Who calls. No caller can keep all handlers busy. Raises TooManyCalls."""
        caller = self._caller(context)
        name = caller.peer.name if caller.peer else INVITATION
        limit = self._node.config.limits.calls
        with self._lock:
            if self._open[name] >= limit:
                raise TooManyCalls(
                    f"{name} has {limit} calls open already.", "Wait until some of them are over."
                )
            self._open[name] += 1
        try:
            yield caller
        finally:
            with self._lock:
                self._open[name] -= 1

    def _caller(self, context: grpc.ServicerContext) -> Caller:
        fields = context.auth_context()
        if fields.get("ssl_tls_version", [b"TLSv1.3"]) != [b"TLSv1.3"]:
            raise refused("it does not speak TLS 1.3")
        leaf = b"".join(map(bytes, fields.get("x509_pem_cert", [])))
        with self._node.reading() as conn:
            return authenticate(conn, leaf, self._node.identity.authority_pem)

    def pair(self, request: peer_pb2.Identity, caller: Caller) -> peer_pb2.Identity:
        if caller.invitation is None:
            raise refused("pairing takes an invitation's certificate")
        identity = Identity.from_message(request)
        return pairing.answer(self._node, caller.invitation, identity).to_message()

    def offer_agreement(
        self, request: peer_pb2.AgreementOffer, caller: Caller
    ) -> peer_pb2.AgreementReply:
        envelope = agreements.receive(self._node, _paired(caller), request.envelope)
        self._node.tables.check()
        return peer_pb2.AgreementReply(envelope=envelope)

    def add_checkpoint(
        self, request: peer_pb2.AddCheckpointRequest, caller: Caller
    ) -> peer_pb2.AddCheckpointReply:
        answer = witnessing.answer(self._node, _paired(caller), request.body)
        return peer_pb2.AddCheckpointReply(status=answer.status, body=answer.body)

    def withdraw_rows(
        self, request: peer_pb2.WithdrawalNotice, caller: Caller
    ) -> peer_pb2.WithdrawalAcknowledgement:
        answer = withdrawals.honour(self._node, _paired(caller), request.envelope)
        return peer_pb2.WithdrawalAcknowledgement(
            envelope=answer.envelope, entry=answer.entry, proof=answer.proof
        )

    def announce_key(
        self, request: peer_pb2.KeyAnnouncement, caller: Caller
    ) -> peer_pb2.KeyAcknowledgement:
        pinned = rotation.receive(self._node, _paired(caller), request.succession)
        return peer_pb2.KeyAcknowledgement(fingerprint=pinned.fingerprint)

    def check_health(
        self, request: health_pb2.HealthCheckRequest, caller: Caller
    ) -> health_pb2.HealthCheckResponse:
        known = request.service in {"", RUN_METHOD.split("/")[1]}
        states = health_pb2.HealthCheckResponse
        return states(status=states.SERVING if known else states.SERVICE_UNKNOWN)

    def run(self, frames: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        with _answering(context, self._node), self._admitted(context) as caller:
            peer = _paired(caller)
            limits = self._node.config.limits
            transport = StreamTransport(
                run_seconds=CALL_SECONDS, silence_seconds=limits.silence_seconds
            )
            transport.attach(frames, context)
            run = threading.Thread(
                target=session.serve_run,
                args=(self._node, peer, transport),
                daemon=True,
                name="run",
            )
            run.start()
            yield from transport.outgoing()


def _first(messages: Iterator[Any], context: grpc.ServicerContext) -> Any:
    """The request of a call; a caller that takes too long to send it is cut off."""
    timer = threading.Timer(CALL_SECONDS, context.cancel)
    timer.start()
    try:
        return next(messages)
    except Exception as error:  # none came: StopIteration, or gRPC's bare Exception
        raise refused("it sent no request") from error
    finally:
        timer.cancel()


def _paired(caller: Caller) -> Identity:
    if caller.peer is None:
        raise refused("an invitation is good for pairing only")
    return caller.peer


@contextmanager
def _answering(context: grpc.ServicerContext, node: Node) -> Iterator[None]:
    """A failure becomes the call's status, as JSON the other side can read."""
    try:
        yield
    except ConcordatError as error:
        failure = error
    except Exception:
        node.logger.exception("a call failed")
        failure = InternalError("The node failed on this call.", "Look at the node's own log.")
    else:
        return
    details = json.dumps({"code": failure.code, "message": failure.message})
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, details)


@dataclass
class Serving:
    """A node that answers, until `stop` is called or a signal comes."""

    node: Node
    stopped: threading.Event

    def wait(self) -> None:
        self.stopped.wait()

    def stop(self) -> None:
        self.stopped.set()


@contextmanager
def serving(node: Node) -> Iterator[Serving]:
    """Serve until the block ends. Raises PortBusy, AlreadyServing."""
    if ping(node.home) is not None:
        raise AlreadyServing(
            f"A node already serves from {node.home.path}.",
            "Stop it first, or give each node a home of its own.",
        )
    folder = Path(tempfile.mkdtemp(prefix="concordat-"))  # short: a socket's path has 107 bytes
    peer_server = grpc.server(
        futures.ThreadPoolExecutor(_HANDLERS, thread_name_prefix="peer"),
        handlers=PeerService(node).handlers(),
        options=[*channel_options(node.config.limits.frame_bytes), *_server_options(node)],
        maximum_concurrent_rpcs=_HANDLERS + _QUEUED_CALLS,
    )
    admin_server = grpc.server(futures.ThreadPoolExecutor(4, thread_name_prefix="admin"))
    admin_pb2_grpc.add_AdminServicer_to_server(  # type: ignore[no-untyped-call]
        AdminService(node), admin_server
    )
    address = f"unix:{folder / 'admin.sock'}"
    admin_server.add_insecure_port(address)
    result = Serving(node, threading.Event())
    with ExitStack() as undo:
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        undo.callback(_stop, node, admin_server, peer_server)
        _bind(peer_server, node)
        node.after_restart()
        peer_server.start()
        admin_server.start()
        record = {"pid": os.getpid(), "admin": address}
        write_private(node.home.running_file, json.dumps(record).encode(), overwrite=True)
        undo.callback(node.home.running_file.unlink, missing_ok=True)
        undo.callback(result.stop)
        deliveries = threading.Thread(
            target=courier.Courier(node).run, args=(result.stopped,), daemon=True, name="courier"
        )
        deliveries.start()
        watch = threading.Thread(target=_daily, args=(result,), daemon=True)
        watch.start()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                previous = signal.signal(number, lambda *_: result.stop())
                undo.callback(signal.signal, number, previous)
        yield result


def _daily(serving: Serving) -> None:
    """Once a day: forget periods that are over; say that the certificate is about to expire."""
    while not serving.stopped.is_set():
        try:
            periods.expire(serving.node)
            if warning := serving.node.expiry_warning():
                serving.node.logger.warning(warning)
        except ConcordatError as error:
            serving.node.logger.warning(error.message)
        except OSError as error:
            serving.node.logger.warning(f"What is done once a day failed: {error.strerror}.")
        serving.stopped.wait(_DAY_SECONDS)


def _server_options(node: Node) -> list[tuple[str, int]]:
    """What limits connections that say little or nothing."""
    return [
        ("grpc.max_concurrent_streams", node.config.limits.calls),
        ("grpc.server_handshake_timeout_ms", 10_000),
        ("grpc.max_connection_idle_ms", 300_000),
    ]


def _stop(node: Node, *servers: grpc.Server) -> None:
    """Take no more calls, end the runs under way on both sides, and let them be recorded."""
    stopped = [server.stop(grace=_STOP_SECONDS) for server in servers]
    for control in list(node.controls.values()):
        control.cancel()
    for event in stopped:
        event.wait()


def _bind(server: grpc.Server, node: Node) -> None:
    host, _, port = node.config.listen.rpartition(":")
    try:
        with socket.create_server((host, int(port)), family=socket.AF_INET):
            pass
        # gRPC sets SO_REUSEADDR; its own bind fails if someone was faster.
        server.add_secure_port(node.config.listen, node.server_credentials())
    except (OSError, OverflowError, RuntimeError) as error:
        raise PortBusy(
            f"The node cannot listen at {node.config.listen}.",
            "Another program has the port, or the address is not this machine's: stop that "
            f"program, or change `listen` in {node.home.config_file}.",
        ) from error
