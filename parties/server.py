"""The serving node: the peer service over mutual TLS, the admin service on a Unix socket."""

import json
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from parties import agreements, pairing, session, witnessing
from parties.admin import AdminService, ping
from parties.errors import AlreadyServing, InternalError, PortBusy
from parties.files import write_private
from parties.identity import Identity, refused
from parties.node import Node
from parties.peers import Caller, authenticate
from parties.wire import RUN_METHOD, StreamTransport, channel_options
from protos.concordat.v1 import admin_pb2_grpc, peer_pb2
from protos.errors import ConcordatError

_HANDLERS = 16


class PeerService:
    """What a partner may call. Every call is answered for the caller's certificate, or refused."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def handlers(self) -> grpc.GenericRpcHandler:
        """`Run` passes bytes through: a frame is hashed as it travelled, not as it is parsed."""

        def unary(method: Callable[[Any, Caller], Any], request: Any, reply: Any) -> Any:
            def answer(message: Any, context: grpc.ServicerContext) -> Any:
                with _answering(context, self._node):
                    return method(message, self._caller(context))

            return grpc.unary_unary_rpc_method_handler(
                answer,
                request_deserializer=request.FromString,
                response_serializer=reply.SerializeToString,
            )

        service, run = RUN_METHOD.strip("/").split("/")
        return grpc.method_handlers_generic_handler(
            service,
            {
                "Pair": unary(self.pair, peer_pb2.Identity, peer_pb2.Identity),
                "OfferAgreement": unary(
                    self.offer_agreement, peer_pb2.AgreementOffer, peer_pb2.AgreementReply
                ),
                "AddCheckpoint": unary(
                    self.add_checkpoint,
                    peer_pb2.AddCheckpointRequest,
                    peer_pb2.AddCheckpointReply,
                ),
                run: grpc.stream_stream_rpc_method_handler(self.run),
            },
        )

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
        return peer_pb2.AgreementReply(envelope=envelope)

    def add_checkpoint(
        self, request: peer_pb2.AddCheckpointRequest, caller: Caller
    ) -> peer_pb2.AddCheckpointReply:
        answer = witnessing.answer(self._node, _paired(caller), request.body)
        return peer_pb2.AddCheckpointReply(status=answer.status, body=answer.body)

    def run(self, frames: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        with _answering(context, self._node):
            peer = _paired(self._caller(context))
        limits = self._node.config.limits
        transport = StreamTransport(limits.silence_seconds)
        context.add_callback(transport.close)
        transport.attach(frames, context)

        def serve() -> None:
            try:
                session.serve_run(self._node, peer, transport)
            finally:
                transport.finish()

        threading.Thread(target=serve, daemon=True, name="run").start()
        yield from transport.outgoing()


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
    workers = futures.ThreadPoolExecutor(_HANDLERS, thread_name_prefix="peer")
    limits = node.config.limits
    peer_server = grpc.server(workers, options=channel_options(limits.frame_bytes))
    peer_server.add_generic_rpc_handlers((PeerService(node).handlers(),))
    admin_server = grpc.server(futures.ThreadPoolExecutor(4, thread_name_prefix="admin"))
    result = Serving(node, threading.Event())
    try:
        _bind(peer_server, node)
        checks = health.HealthServicer()
        for service in ("", RUN_METHOD.split("/")[1]):
            checks.set(service, health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(checks, peer_server)
        admin_pb2_grpc.add_AdminServicer_to_server(  # type: ignore[no-untyped-call]
            AdminService(node), admin_server
        )
        address = f"unix:{folder / 'admin.sock'}"
        admin_server.add_insecure_port(address)
        node.after_restart()
        peer_server.start()
        admin_server.start()
        record = {"pid": os.getpid(), "admin": address}
        write_private(node.home.running_file, json.dumps(record).encode(), overwrite=True)
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: result.stop())
        yield result
    finally:
        node.home.running_file.unlink(missing_ok=True)
        for server in (admin_server, peer_server):
            server.stop(grace=1).wait()
        shutil.rmtree(folder, ignore_errors=True)


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
