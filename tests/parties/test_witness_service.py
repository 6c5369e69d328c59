"""The third witness: its service over real HTTP, and agreements that require it."""

import http.client
import json
import socket
import sqlite3
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from conftest import make
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from ready import AGREEMENT, job, make_ready
from ready import run as run_job

from compliance import witness
from compliance.errors import StoreMissing
from compliance.note import Checkpoint, Note, VerifierKey, sign
from compliance.signing import SigningKey
from compliance.witness import MAX_REQUEST, Request
from federated.errors import ProtocolViolation
from parties import agreements, audits, session, witness_service, witnessing
from parties.config import ThirdWitness
from parties.errors import (
    ConfigError,
    HomeExists,
    NoHome,
    PortBusy,
    WitnessMissing,
    WitnessNotConfigured,
)
from parties.node import Node
from parties.witness_service import WitnessHome


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture
def regulator(tmp_path: Path) -> WitnessHome:
    home = WitnessHome(tmp_path / "regulator")
    home.create("regulator.example/witness", f"127.0.0.1:{free_port()}")
    return home


@pytest.fixture
def node(tmp_path: Path, regulator: WitnessHome) -> Node:
    made = make(tmp_path, "lone")
    regulator.add_log(made.identity.log_key)
    return made


@pytest.fixture
def serving(regulator: WitnessHome) -> Iterator[None]:
    with witness_service.serving(regulator):
        yield


def third(home: WitnessHome, scheme: str = "http", **more: object) -> ThirdWitness:
    url = f"{scheme}://{home.config().listen}"
    return ThirdWitness(name="regulator", url=url, key=str(home.verifier()), **more)


def grow(node: Node, count: int = 1) -> None:
    with node.writing() as conn:
        for _ in range(count):
            node.log.append(conn, "test.grown", {}, time=node.now())
        node.log.checkpoint(conn)


def request(node: Node, old: int) -> Request:
    with node.reading() as conn:
        return witness.request(conn, node.log, old)


def post(
    home: WitnessHome, body: bytes, method: str = "POST", path: str = "/add-checkpoint"
) -> tuple[int, str | None, bytes]:
    connection = http.client.HTTPConnection(home.config().listen, timeout=20)
    connection.request(method, path, body)
    response = connection.getresponse()
    return response.status, response.headers["Content-Type"], response.read()


def test_it_answers_as_the_specification_says(
    node: Node, regulator: WitnessHome, serving: None
) -> None:
    first = request(node, 0)
    status, kind, body = post(regulator, first.encode())
    assert (status, kind) == (200, "text/plain; charset=utf-8")
    note = Note.parse(first.checkpoint.text.encode() + b"\n" + body)
    note.verify(regulator.verifier())
    assert body.startswith("— regulator.example/witness ".encode())
    assert body.endswith(b"\n")
    grow(node, 3)
    size = first.checkpoint.size
    status, kind, body = post(regulator, request(node, 0).encode())
    assert (status, kind, body) == (409, "text/x.tlog.size", b"%d\n" % size)
    assert post(regulator, request(node, size).encode())[0] == 200
    assert regulator.cosigned() == {node.log.origin: size + 3}


def test_it_refuses_as_the_specification_says(
    node: Node, regulator: WitnessHome, serving: None, tmp_path: Path
) -> None:
    assert post(regulator, b"hello")[0] == 400
    sent = request(node, 0)
    beyond = Request(sent.checkpoint.size + 1, (), sent.checkpoint)
    assert post(regulator, beyond.encode())[0] == 400
    stranger = make(tmp_path, "stranger")
    assert post(regulator, request(stranger, 0).encode())[0] == 404
    forged = Checkpoint(node.log.origin, 5, bytes(32))
    by_another = forged.signed(sign(forged.text, node.log.origin, SigningKey.generate()))
    assert post(regulator, Request(0, (), by_another).encode())[0] == 403
    assert regulator.cosigned() == {}

    assert post(regulator, sent.encode())[0] == 200
    size = sent.checkpoint.size
    other = Checkpoint(node.log.origin, size, bytes(32))
    other = other.signed(sign(other.text, node.log.origin, node.log.key))
    status, kind, _ = post(regulator, Request(size, (), other).encode())
    assert (status, kind) == (409, "text/plain; charset=utf-8")
    later = Checkpoint(node.log.origin, size + 1, bytes(32))
    later = later.signed(sign(later.text, node.log.origin, node.log.key))
    assert post(regulator, Request(size, (bytes(32),), later).encode())[0] == 422
    evidence = [
        Request.parse(file.read_bytes()) for file in (regulator.path / "evidence").iterdir()
    ]
    assert {one.checkpoint for one in evidence} == {other, later}
    for one in evidence:
        one.checkpoint.verify(node.log.verifier)
    assert regulator.cosigned() == {node.log.origin: size}


def test_it_speaks_nothing_else(node: Node, regulator: WitnessHome, serving: None) -> None:
    assert post(regulator, b"", path="/")[0] == 404
    assert post(regulator, b"", method="GET")[0] == 405
    assert post(regulator, b"x" * (MAX_REQUEST + 1))[0] == 413
    host, _, port = regulator.config().listen.rpartition(":")
    for line in (b"\x16\x03\x01 tls?\r\n\r\n", b"POST /add-checkpoint HTTP/9\r\n\r\n"):
        with socket.create_connection((host, int(port)), timeout=20) as raw:
            raw.sendall(line)
            assert b" 400 " in raw.recv(4096)
    assert post(regulator, request(node, 0).encode())[0] == 200


def test_a_body_that_does_not_come_is_not_waited_for(
    regulator: WitnessHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(witness_service, "_BODY_SECONDS", 0.2)
    monkeypatch.setattr(witness_service, "_CONNECTION_SECONDS", 0.5)
    host, _, port = regulator.config().listen.rpartition(":")
    with witness_service.serving(regulator):
        with socket.create_connection((host, int(port)), timeout=20) as raw:
            raw.sendall(b"POST /add-checkpoint HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nold")
            assert b" 408 " in raw.recv(4096)
        with socket.create_connection((host, int(port)), timeout=20) as silent:
            assert silent.recv(10) == b""


def test_of_many_at_once_one_is_cosigned(node: Node, regulator: WitnessHome, serving: None) -> None:
    """Checking the old size and keeping the new one is one step."""
    bodies = []
    for _ in range(8):
        grow(node)
        bodies.append(request(node, 0).encode())
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda body: post(regulator, body), bodies))
    assert sorted(status for status, *_ in answers) == [200] + [409] * 7
    (size,) = regulator.cosigned().values()
    assert all(body == b"%d\n" % size for status, _, body in answers if status == 409)


def test_a_log_is_known_from_the_next_request_on(
    regulator: WitnessHome, serving: None, tmp_path: Path
) -> None:
    late = make(tmp_path, "late")
    body = request(late, 0).encode()
    assert post(regulator, body)[0] == 404
    regulator.add_log(late.identity.log_key)
    regulator.add_log(late.identity.log_key)
    assert post(regulator, body)[0] == 200
    assert len(regulator.logs()) == 1
    with pytest.raises(ConfigError, match="Another key of the log"):
        regulator.add_log(str(VerifierKey(late.log.origin, SigningKey.generate().public)))
    for key in ("", "x", late.identity.witness_key):
        with pytest.raises(ConfigError):
            regulator.add_log(key)


def test_a_witness_that_lost_its_memory_does_not_serve(regulator: WitnessHome) -> None:
    for file in regulator.path.glob("witness.db*"):
        file.unlink()
    with pytest.raises(StoreMissing), witness_service.serving(regulator):
        pass


def test_what_a_witness_needs_is_said(tmp_path: Path, regulator: WitnessHome) -> None:
    with pytest.raises(HomeExists):
        regulator.create("other", "127.0.0.1:1")
    with pytest.raises(NoHome):
        WitnessHome(tmp_path / "nowhere").config()
    for name, listen in (("a name", "127.0.0.1:1"), ("name", "nowhere"), ("", "127.0.0.1:1")):
        with pytest.raises(ConfigError):
            WitnessHome(tmp_path / "new").create(name, listen)
    assert not (tmp_path / "new").exists()
    host, _, port = regulator.config().listen.rpartition(":")
    with (
        socket.create_server((host, int(port))),
        pytest.raises(PortBusy),
        witness_service.serving(regulator),
    ):
        pass
    (regulator.path / "witness.yaml").write_text("name: 1\n")
    with pytest.raises(ConfigError):
        regulator.config()


def test_a_node_asks_and_keeps_the_cosignature(
    node: Node, regulator: WitnessHome, serving: None
) -> None:
    node.config.witnesses.append(third(regulator))
    verdict, silent = audits.verify(node)
    assert (verdict.ok, silent) == (True, [])
    assert verdict.report.cosigned.keys() == {"regulator.example/witness"}
    grow(node, 5)
    again, _ = audits.verify(node)
    assert again.ok, again.report.findings
    assert regulator.cosigned()[node.log.origin] >= again.report.size


def test_a_log_that_was_rolled_back_is_found_by_the_third_witness(
    node: Node, regulator: WitnessHome, serving: None
) -> None:
    node.config.witnesses.append(third(regulator))
    witnessing.ask_third(node, node.config.witnesses[0])
    with sqlite3.connect(node.home.path / "concordat.db") as store:
        old = sqlite3.connect(":memory:")
        store.backup(old)
    grow(node, 2)
    witnessing.ask_third(node, node.config.witnesses[0])
    with sqlite3.connect(node.home.path / "concordat.db") as store:
        old.backup(store)
    verdict, _ = audits.verify(node)
    (finding,) = verdict.report.findings
    assert finding.startswith("witness regulator: E522 A witness has seen")


def test_over_tls_with_an_authority_of_its_own(
    node: Node, regulator: WitnessHome, tmp_path: Path
) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    self_signed(certificate, key)
    with (regulator.path / "witness.yaml").open("a") as file:
        file.write(f"certificate: {certificate}\nprivate_key: {key}\n")
    with witness_service.serving(regulator):
        trusting = third(regulator, "https", authority=certificate)
        assert witnessing.ask_third(node, trusting)
        grow(node)
        assert not witnessing.ask_third(node, third(regulator, "https")), "whom nobody vouches for"
        assert not witnessing.ask_third(node, third(regulator, "http"))
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.load_verify_locations(certificate)
        connection = http.client.HTTPSConnection(regulator.config().listen, context=old)
        connection.request("POST", "/add-checkpoint", b"hello")
        assert connection.getresponse().status == 400
    key.write_text("no key")
    with pytest.raises(ConfigError), witness_service.serving(regulator):
        pass


def self_signed(certificate: Path, key: Path) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "witness")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, private.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 200_000,
        b"HTTP/1.1 409 Conflict\r\nContent-Length: 20\r\n\r\n99999999999999999999",
        b"SSH-2.0-OpenSSH\r\n",
        b"",
    ],
)
def test_an_answer_that_is_none_is_no_cosignature(
    node: Node, regulator: WitnessHome, answer: bytes
) -> None:
    host, _, port = regulator.config().listen.rpartition(":")
    with socket.create_server((host, int(port))) as server, ThreadPoolExecutor(1) as pool:

        def impostor() -> None:
            for _ in range(3):
                server.settimeout(2)
                try:
                    with server.accept()[0] as connection:
                        connection.settimeout(2)
                        connection.recv(MAX_REQUEST)
                        connection.sendall(answer)
                except OSError:
                    return

        done = pool.submit(impostor)
        try:
            assert not witnessing.ask_third(node, third(regulator))
        except witness.SplitView:
            assert b"409" in answer
        done.result()


# An agreement that requires it


@pytest.fixture
def watched(
    bank: Node, shop: Node, paillier_key: bytes, regulator: WitnessHome
) -> tuple[Node, Node]:
    """Bank and shop, ready for jobs, with the regulator as witness of both."""
    make_ready(bank, shop, paillier_key)
    path = bank.home.path / "watched.yaml"
    text = AGREEMENT.format(version=1, partner_learns="size")
    path.write_text(text.replace("agreement: offers", "agreement: watched\nwitnesses: [regulator]"))
    agreements.propose(bank, path)
    agreements.sign(shop, "watched")
    for node in (bank, shop):
        regulator.add_log(node.identity.log_key)
        node.config.witnesses.append(third(regulator))
    return bank, shop


def types(node: Node) -> list[str]:
    with node.reading() as conn:
        return [entry.type for entry in node.log.entries(conn)]


def test_a_run_is_cosigned_before_any_data_and_after_it(
    watched: tuple[Node, Node], regulator: WitnessHome, serving: None
) -> None:
    bank, _ = watched
    report = run_job(bank, "overlap", agreement="watched")
    assert report["state"] == "completed"
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not all(audits.verify(node)[0].ok for node in watched):
        time.sleep(0.2)
    for node in watched:
        verdict, silent = audits.verify(node)
        assert verdict.ok, verdict.report.findings
        assert silent == []
        assert "regulator.example/witness" in str(verdict)


def test_without_the_witness_nothing_is_released(
    watched: tuple[Node, Node], regulator: WitnessHome
) -> None:
    bank, _ = watched
    with pytest.raises(WitnessMissing, match="regulator has not cosigned"):
        run_job(bank, "overlap", agreement="watched")
    for node in watched:
        assert "run.intent" in types(node)
        assert "run.release" not in types(node)
        (finding,) = audits.verify(node, offline=True)[0].report.findings
        assert "lacks the cosignature of regulator, which agreement watched requires" in finding
        assert finding.startswith("checkpoint ")
    assert run_job(bank, "overlap")["state"] == "completed", "another agreement does not need it"
    with witness_service.serving(regulator):
        for node in watched:
            assert audits.verify(node)[0].ok, "asked, it has cosigned"


def test_a_witness_that_is_not_configured_is_said_before_a_run(
    watched: tuple[Node, Node],
) -> None:
    bank, _ = watched
    bank.config.witnesses.clear()
    before = types(bank).count("run.intent")
    with pytest.raises(WitnessNotConfigured, match="witness regulator"):
        session.plan(bank, job("overlap", agreement="watched"))
    assert types(bank).count("run.intent") == before


def test_a_partner_cannot_claim_a_cosignature(
    watched: tuple[Node, Node], regulator: WitnessHome, serving: None
) -> None:
    bank, shop = watched
    agreement = agreements.in_force(bank, "watched")
    grow(shop)
    note = witnessing.cosigned(shop, agreement)
    witnessing.check_cosigned(bank, agreement, shop.identity, note, after=1)
    size = Checkpoint.parse(note).size
    with shop.reading() as conn:
        own = shop.log.checkpoint_at(conn, size)
    bare = Checkpoint(own.origin, own.size, own.root, (), own.signatures[:1])
    stranger = make(bank.home.path / "elsewhere", "stranger")
    for wrong in (b"", b"x", bare.encode(), witnessing.cosigned(bank, agreement)):
        with pytest.raises(ProtocolViolation, match="lacks the cosignature"):
            witnessing.check_cosigned(bank, agreement, shop.identity, wrong, after=1)
    with pytest.raises(ProtocolViolation, match="older than the run"):
        witnessing.check_cosigned(bank, agreement, shop.identity, note, after=size)
    with pytest.raises(ProtocolViolation):
        witnessing.check_cosigned(bank, agreement, stranger.identity, note, after=1)


def test_whose_cosignatures_a_name_stands_for_is_in_the_log(
    node: Node, regulator: WitnessHome, serving: None
) -> None:
    witnessing.ask_third(node, third(regulator))
    witnessing.ask_third(node, third(regulator))
    other = VerifierKey("regulator.example/witness", SigningKey.generate().public, 4)
    changed = third(regulator).model_copy(update={"key": str(other)})
    assert not witnessing.ask_third(node, changed), "the service signs with another key"
    with node.reading() as conn:
        assert witnessing.pinned(conn) == {"regulator": [regulator.verifier(), other]}
        entries = [json.loads(entry.leaf) for entry in node.log.entries(conn)]
    pinned = [entry for entry in entries if entry["type"] == "witness.pinned"]
    assert [entry["key"] for entry in pinned] == [str(regulator.verifier()), str(other)]
