"""Peers that open too much, say too much, or neither speak nor listen."""

import resource
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from conftest import make
from ready import Watch, pair, run, run_threads, until

from federated.channel import Channel
from parties import pairing, server, witnessing
from parties.errors import PeerRefused
from parties.identity import Identity
from parties.node import Node
from parties.wire import RUN_METHOD
from protos.concordat.v1.run_pb2 import Abort, Frame, Points
from protos.errors import ConcordatError

Nodes = tuple[Node, Node]

HEALTH = "/grpc.health.v1.Health/Check"

# Too much at once


class Hog:
    """Opens calls over connections of its own, and says nothing in them."""

    def __init__(self, node: Node, peer: Identity) -> None:
        self._peer = peer
        self._credentials = grpc.ssl_channel_credentials(
            peer.authority_pem.encode(),
            node.home.key("node").read_bytes(),
            node.home.certificate("node").read_bytes(),
        )
        self._channels: list[grpc.Channel] = []
        self._enough = threading.Event()
        self.calls: list[Any] = []

    def open(self, method: str, count: int) -> None:
        for _ in range(count):
            options = [
                ("grpc.ssl_target_name_override", self._peer.name),
                ("grpc.use_local_subchannel_pool", 1),
            ]
            channel = grpc.secure_channel(self._peer.address, self._credentials, options)
            self._channels.append(channel)
            self.calls.append(channel.stream_stream(method)(self._nothing()))

    def _nothing(self) -> Iterator[bytes]:
        self._enough.wait(30)
        yield from ()

    def refused(self) -> int:
        """How many of the calls are over, each with the number for too many."""
        over = [call for call in self.calls if call.done()]
        assert all("E630" in call.details() for call in over)
        return len(over)

    def __enter__(self) -> "Hog":
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        for channel in self._channels:
            channel.close()


@pytest.mark.parametrize("method", [RUN_METHOD, "/concordat.v1.Peer/OfferAgreement", HEALTH])
def test_calls_without_number(paired: Nodes, tmp_path: Path, method: str) -> None:
    """A partner holds open what it may, and not one more; others are answered meanwhile."""
    bank, shop = paired
    allowed = bank.config.limits.calls
    with Hog(shop, bank.identity) as hog:
        hog.open(method, 40)
        until(lambda: hog.refused() == 40 - allowed)
        with shop.dial(bank.identity) as client, pytest.raises(PeerRefused, match="E630"):
            client.add_checkpoint(b"")
        telco = make(tmp_path, "telco", "telecom")
        pairing.invite(bank, tmp_path / "for telco")
        pairing.accept(telco, tmp_path / "for telco", bank.identity.fingerprint)
    until(lambda: witnessed(shop, bank))


def witnessed(node: Node, peer: Node) -> bool:
    with suppress(PeerRefused):
        return witnessing.ask(node, peer.identity)
    return False


def test_a_request_that_never_comes(paired: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    bank, shop = paired
    monkeypatch.setattr(server, "CALL_SECONDS", 0.5)
    with Hog(shop, bank.identity) as hog:
        hog.open("/concordat.v1.Peer/AddCheckpoint", 1)
        until(hog.calls[0].done, 5)


def test_connections_that_say_nothing_or_nonsense(paired: Nodes) -> None:
    bank, shop = paired
    host, _, port = bank.config.listen.rpartition(":")
    with ExitStack() as stack:
        for number in range(60):
            line = stack.enter_context(socket.create_connection((host, int(port)), 5))
            if number % 2:
                line.sendall(secrets.token_bytes(10_000))
        assert witnessing.ask(shop, bank.identity)


# One byte a second


class Trickle:
    """A line to a node on which, from the moment it is told, one byte a second passes."""

    def __init__(self, address: str, *, at_once: bool) -> None:
        self.slow = threading.Event()
        if at_once:
            self.slow.set()
        host, _, port = address.rpartition(":")
        self._target = host, int(port)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        self._lines: list[socket.socket] = [self._server]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(self._target)
                self._lines += [near, far]
                threading.Thread(target=self._carry, args=(near, far, True), daemon=True).start()
                threading.Thread(target=self._carry, args=(far, near, False), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, trickles: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 if trickles and self.slow.is_set() else 65536):
                if trickles and self.slow.is_set():
                    for at in range(len(data)):
                        time.sleep(1)
                        sink.sendall(data[at : at + 1])
                else:
                    sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def __enter__(self) -> "Trickle":
        return self

    def __exit__(self, *_: object) -> None:
        for line in self._lines:
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
            line.close()


def through(peer: Node, line: Trickle) -> Identity:
    return replace(peer.identity, address=line.address)


def test_one_byte_a_second_in_a_handshake(paired: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node hangs up; it has answered others meanwhile."""
    bank, shop = paired
    host, _, port = bank.config.address.rpartition(":")
    started = time.monotonic()
    with socket.create_connection((host, int(port)), 30) as line:
        hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)
        with suppress(OSError):
            for at in range(30):
                line.sendall(hello[at : at + 1])
                line.settimeout(1)
                with suppress(TimeoutError):
                    if not line.recv(1):
                        break
                assert at or witnessing.ask(shop, bank.identity)
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("stage", ["gate", "blind ids"])
def test_one_byte_a_second_in_a_run(ready: Nodes, stage: str) -> None:
    """Not one whole frame in `silence_seconds`: both sides end the run, and then work again."""
    bank, shop = ready
    bank.config.limits.silence_seconds = shop.config.limits.silence_seconds = 2
    honest = bank.dial
    ours, theirs = Watch(bank), Watch(shop)
    with Trickle(shop.config.address, at_once=False) as line:
        bank.dial = lambda peer: honest(through(shop, line))  # type: ignore[method-assign]

        def listen(run: str, reached: str, done: int, total: int) -> None:
            if reached == stage:
                line.slow.set()

        started = time.monotonic()
        with pytest.raises(ConcordatError) as ended:
            run(bank, "overlap", listen)
        assert time.monotonic() - started < 15
        assert ended.value.code in {"E208", "E209"}
        (other,) = theirs.ended()
        assert other["report"]["error"]["code"] == "E208"
        assert ours.ended()[0]["state"] == other["state"] == "failed"
    del bank.dial
    assert run(bank, "overlap")["state"] == "completed"


# In a run


@contextmanager
def answering(shop: Node, behave: Callable[[Iterator[bytes]], Iterator[bytes]]) -> Iterator[None]:
    """In place of the shop's node: something that treats runs in its own way."""
    service, method = RUN_METHOD.strip("/").split("/")
    run = grpc.stream_stream_rpc_method_handler(lambda frames, _: behave(frames))
    fake = grpc.server(
        futures.ThreadPoolExecutor(4), options=[("grpc.max_send_message_length", 64 << 20)]
    )
    fake.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: run}),))
    fake.add_secure_port(shop.config.listen, shop.server_credentials())
    fake.start()
    try:
        yield
    finally:
        fake.stop(0).wait()


ABORT = Frame(abort=Abort(code="E499", message="It has \x1b[31mhad enough.")).SerializeToString()


def deaf(frames: Iterator[bytes]) -> Iterator[bytes]:
    """Never reads, never answers."""
    time.sleep(4)
    yield from ()


def leaves(frames: Iterator[bytes]) -> Iterator[bytes]:
    next(frames)
    yield from ()


def says_why(frames: Iterator[bytes]) -> Iterator[bytes]:
    next(frames)
    yield ABORT


def shouts(frames: Iterator[bytes]) -> Iterator[bytes]:
    yield from (bytes(1 << 20) for _ in range(100))


@pytest.fixture
def knows_shop(bank: Node, tmp_path: Path) -> Nodes:
    """The bank is paired with a shop whose node does not serve now."""
    shop = make(tmp_path, "shop", "ecommerce")
    with server.serving(shop):
        pair(bank, shop)
    return bank, shop


@pytest.mark.parametrize(("behave", "code"), [(deaf, "E208"), (leaves, "E208"), (says_why, "E209")])
def test_a_sender_does_not_wait_for_ever(
    knows_shop: Nodes, behave: Callable[[Iterator[bytes]], Iterator[bytes]], code: str
) -> None:
    bank, shop = knows_shop
    bank.config.limits.silence_seconds = 0.5
    with answering(shop, behave), bank.dial(shop.identity) as client:
        transport = client.run(20)
        channel = Channel(transport, initiator=True)
        started = time.monotonic()
        with pytest.raises(ConcordatError) as ended:
            while True:
                channel.send(Points(points=bytes(1 << 20)))
        assert time.monotonic() - started < 5
        assert ended.value.code == code
        assert "\x1b" not in ended.value.message
        transport.finish()


def test_a_peer_that_does_not_stop_talking_is_not_heard_out(knows_shop: Nodes) -> None:
    """What nobody asked for waits with its sender, and does not pile up here."""
    bank, shop = knows_shop
    with answering(shop, shouts), bank.dial(shop.identity) as client:
        transport = client.run(20)
        assert len(transport.receive()) == 1 << 20
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        time.sleep(1)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10
        transport.close()
    until(lambda: not run_threads())


def test_a_frame_beyond_all_limits(knows_shop: Nodes) -> None:
    bank, shop = knows_shop

    def bursts(frames: Iterator[bytes]) -> Iterator[bytes]:
        yield b"\x00"
        yield bytes(bank.config.limits.frame_bytes + (1 << 20))

    with answering(shop, bursts), bank.dial(shop.identity) as client:
        transport = client.run(20)
        transport.receive()
        with pytest.raises(ConcordatError) as ended:
            transport.receive()
    assert ended.value.code == "E202"


@pytest.mark.parametrize(
    ("status", "details", "code"),
    [
        (grpc.StatusCode.FAILED_PRECONDITION, '{"code": "E999\x1b[2J", "message": "\x07"}', "E613"),
        (grpc.StatusCode.FAILED_PRECONDITION, "[" * 5000, "E613"),
        (grpc.StatusCode.FAILED_PRECONDITION, '{"code": 7}', "E613"),
        (grpc.StatusCode.INTERNAL, "\x1b[31m", "E612"),
        (grpc.StatusCode.UNIMPLEMENTED, "", "E612"),
    ],
)
def test_a_refusal_is_quoted_with_care(
    knows_shop: Nodes, status: grpc.StatusCode, details: str, code: str
) -> None:
    bank, shop = knows_shop
    service = RUN_METHOD.strip("/").split("/")[0]

    def refuse(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(status, details)

    fake = grpc.server(futures.ThreadPoolExecutor(1))
    handlers = {"AddCheckpoint": grpc.unary_unary_rpc_method_handler(refuse)}
    fake.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    fake.add_secure_port(shop.config.listen, shop.server_credentials())
    fake.start()
    with bank.dial(shop.identity) as client, pytest.raises(ConcordatError) as refused:
        client.add_checkpoint(b"")
    fake.stop(0).wait()
    assert refused.value.code == code
    assert refused.value.message.isprintable()
    assert refused.value.next_step.isprintable()
