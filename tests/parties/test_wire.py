"""Who gets through mutual TLS, and to what."""

import socket
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from conftest import make
from grpc_health.v1 import health_pb2, health_pb2_grpc
from ready import until

from parties import server, witnessing
from parties.errors import AlreadyServing, HomeUnusable, PeerRefused, PeerUnreachable, PortBusy
from parties.identity import INVITATION, Authority, certificate_pem, key_pem
from parties.node import Node

NOT_THROUGH = (PeerUnreachable, PeerRefused)  # by TLS itself, or by the node behind it


def credentials(
    authority: Authority, san: str, lifetime: timedelta = timedelta(days=1), age: int = 0
) -> tuple[bytes, bytes]:
    now = datetime.now(UTC) - timedelta(days=age)
    certificate, key = authority.issue(san, now, lifetime)
    return key_pem(key), certificate_pem(certificate)


def test_a_partner_is_answered(paired: tuple[Node, Node]) -> None:
    bank, shop = paired
    assert witnessing.ask(bank, shop.identity)
    assert witnessing.ask(shop, bank.identity)


def test_a_stranger_does_not_get_through(paired: tuple[Node, Node], tmp_path: Path) -> None:
    bank, _ = paired
    stranger = make(tmp_path, "stranger")
    with pytest.raises(PeerUnreachable), stranger.dial(bank.identity) as client:
        client.add_checkpoint(b"")


def test_a_partner_cannot_speak_as_another(paired: tuple[Node, Node], tmp_path: Path) -> None:
    """Its authority is trusted, but only for its own name."""
    bank, shop = paired
    for name in ("bank", "telco", INVITATION):
        stolen = credentials(shop.authority(), name)
        with shop.dial(bank.identity, stolen) as client, pytest.raises(NOT_THROUGH):
            client.add_checkpoint(b"")


def test_the_same_name_from_another_authority_is_refused(paired: tuple[Node, Node]) -> None:
    bank, shop = paired
    impostor = credentials(bank.authority(), "shop")  # an authority that the bank does trust
    with shop.dial(bank.identity, impostor) as client, pytest.raises(NOT_THROUGH):
        client.add_checkpoint(b"")


def test_an_expired_certificate_is_refused(paired: tuple[Node, Node]) -> None:
    bank, shop = paired
    expired = credentials(shop.authority(), "shop", timedelta(days=1), age=2)
    with pytest.raises(PeerUnreachable), shop.dial(bank.identity, expired) as client:
        client.add_checkpoint(b"")


def test_ones_own_expired_certificate_is_named(paired: tuple[Node, Node]) -> None:
    bank, shop = paired
    clock = shop.now
    shop.now = lambda: clock() + timedelta(days=398)
    for connect in (lambda: witnessing.ask(shop, bank.identity), shop.server_credentials):
        with pytest.raises(HomeUnusable, match="certificate expired on") as expired:
            connect()
        assert "concordat node renew" in expired.value.next_step
    shop.now = clock
    assert witnessing.ask(shop, bank.identity)


def test_a_renewed_certificate_is_taken_while_the_node_runs(paired: tuple[Node, Node]) -> None:
    bank, shop = paired
    key, certificate = credentials(bank.authority(), "bank")
    bank.home.key("node").write_bytes(key)
    bank.home.certificate("node").write_bytes(certificate)
    assert witnessing.ask(shop, bank.identity)


def test_an_invitation_opens_nothing_but_pairing(paired: tuple[Node, Node]) -> None:
    bank, shop = paired
    guest = credentials(bank.authority(), INVITATION)
    with shop.dial(bank.identity, guest) as client:
        with pytest.raises(PeerRefused, match="E614"):
            client.add_checkpoint(b"")
        with pytest.raises(PeerRefused, match="E614"):
            client.run(10).receive()
        with pytest.raises(PeerRefused, match="E610"):  # nobody was invited with this one
            client.pair(shop.identity)


def test_pairing_needs_an_invitation(paired: tuple[Node, Node]) -> None:
    bank, shop = paired
    with shop.dial(bank.identity) as client, pytest.raises(PeerRefused, match="E614"):
        client.pair(shop.identity)


def test_a_log_is_cosigned_for_its_own_node_only(paired: tuple[Node, Node]) -> None:
    bank, shop = paired
    with bank.reading() as conn:
        body = b"old 0\n\n" + bank.log.head(conn).encode()  # type: ignore[union-attr]
    with shop.dial(bank.identity) as client:
        status, _ = client.add_checkpoint(body)
    assert status == 404


@pytest.mark.parametrize(("flag", "works"), [("-tls1_2", False), ("-tls1_3", True)])
def test_only_tls_1_3(paired: tuple[Node, Node], tmp_path: Path, flag: str, works: bool) -> None:
    bank, shop = paired
    pem = tmp_path / "shop.pem"
    pem.write_bytes(shop.home.certificate("node").read_bytes() + shop.home.key("node").read_bytes())
    command = ["openssl", "s_client", "-connect", bank.config.address, "-alpn", "h2", flag]
    done = subprocess.run(
        [*command, "-cert", pem, "-key", pem], input=b"", capture_output=True, check=False
    )
    assert (b"New, TLSv1.3, Cipher is TLS_" in done.stdout) == works


def test_a_busy_port_is_said_to_be_busy(tmp_path: Path) -> None:
    node = make(tmp_path, "node")
    host, port = node.config.listen.split(":")
    busy = pytest.raises(PortBusy, match=port)
    with socket.create_server((host, int(port))), busy, server.serving(node):
        pass
    with server.serving(node):  # free again
        assert node.home.running_file.exists()
    assert not node.home.running_file.exists()


def test_a_home_is_served_once(bank: Node) -> None:
    with pytest.raises(AlreadyServing), server.serving(bank):
        pass


def test_garbage_is_refused(paired: tuple[Node, Node]) -> None:
    bank, shop = paired
    with shop.dial(bank.identity) as client:
        assert client.add_checkpoint(b"\xff" * 100)[0] == 400
        with pytest.raises(PeerRefused, match="E50"):
            client.offer_agreement(b"{}")


def test_a_certificate_that_is_about_to_expire_is_spoken_of_every_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also if the node was started long before."""
    monkeypatch.setattr(server, "_DAY_SECONDS", 0.05)
    node = make(tmp_path, "bank")
    clock = node.now

    def said(words: str) -> int:
        return sum(words in record.getMessage() for record in caplog.records)

    with server.serving(node):
        time.sleep(0.2)
        assert not said("certificate")
        node.now = lambda: clock() + timedelta(days=397 - 8)
        until(lambda: said("The node's certificate expires in 7 days. Renew it: concordat") > 2)
        node.now = lambda: clock() + timedelta(days=398)
        until(lambda: said("has expired"))
        node.renew_certificate()
        caplog.clear()
        time.sleep(0.2)
        assert not said("certificate")


def test_a_partner_may_ask_for_the_nodes_health_and_for_no_list_of_calls(
    paired: tuple[Node, Node],
) -> None:
    bank, shop = paired
    with shop.dial(bank.identity) as client:
        health = health_pb2_grpc.HealthStub(client._channel)
        answers = health_pb2.HealthCheckResponse
        for service, status in {
            "": answers.SERVING,
            "concordat.v1.Peer": answers.SERVING,
            "concordat.v1.Admin": answers.SERVICE_UNKNOWN,
        }.items():
            request = health_pb2.HealthCheckRequest(service=service)
            assert health.Check(request, timeout=10).status == status
        for method in (
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            "/grpc.health.v1.Health/Watch",
            "/concordat.v1.Admin/RunJob",
        ):
            with pytest.raises(grpc.RpcError) as refused:
                list(client._channel.stream_stream(method)(iter([b""]), timeout=10))
            assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
    stranger = credentials(bank.authority(), "telco")
    with shop.dial(bank.identity, stranger) as client, pytest.raises(grpc.RpcError):
        health_pb2_grpc.HealthStub(client._channel).Check(request, timeout=10)


def test_renewing_is_a_command_that_partners_do_not_notice(paired: tuple[Node, Node]) -> None:
    bank, shop = paired
    before = bank.certificate()
    bank.renew_certificate()
    assert bank.certificate().serial_number != before.serial_number
    assert bank.days_left() >= 396
    assert witnessing.ask(shop, bank.identity)
    assert bank.home.key("node").stat().st_mode & 0o777 == 0o600
