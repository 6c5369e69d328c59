"""What a partner sends a node: identities, invitations, certificates, offers, answers, whole runs.

The node is real, with a store of its own; the partner is paired and has signed an agreement.
"""

import logging
import ssl
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from google.protobuf.message import DecodeError

from compliance import withdrawal, witness
from compliance.agreement import Agreement, Job
from compliance.canonical import timestamp
from compliance.note import VerifierKey, cosign
from compliance.register import Register, Registered
from compliance.signing import Envelope
from compliance.withdrawal import Acknowledgement, Presence
from compliance.witness import Answer
from fuzz import frames
from fuzz.documents import AGREEMENT, OVERLAP
from fuzz.target import Setup, Target
from parties import (
    agreements,
    consents,
    pairing,
    peers,
    runs,
    session,
    withdrawals,
    witnessing,
)
from parties.config import Home
from parties.errors import InternalError
from parties.identity import INVITATION, INVITATION_LIFETIME, Identity, load_authority
from parties.node import Node
from parties.wire import StreamTransport
from protos.concordat.v1 import peer_pb2
from protos.concordat.v1.run_pb2 import Frame, Hello, Inputs, Signature
from protos.errors import ConcordatError

_NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
_RUN = "0123456789abcdef" * 2
_PEOPLE = range(3)


def _node(folder: Path, name: str, sector: Any) -> Node:
    node = Node.create(Home(folder / name), name, sector, None)
    node.now = lambda: _NOW
    return node


def _pair(folder: Path) -> tuple[Node, Node]:
    """The bank, whose part the input plays, and the shop's node, which must stand it."""
    bank, shop = _node(folder, "bank", "bank"), _node(folder, "shop", "ecommerce")
    for one, other in ((bank, shop), (shop, bank)):
        with one.writing() as conn:
            peers.pin(conn, other.identity, one.identity, _NOW)
    return bank, shop


# Before anything is agreed


def _identity(folder: Path) -> Target:
    bank = _node(folder, "bank", "bank")

    def receive(data: bytes) -> None:
        identity = Identity.from_message(peer_pb2.Identity.FromString(data))
        assert Identity.from_json(identity.to_json()).fingerprint == identity.fingerprint

    seeds = [bank.identity.to_message().SerializeToString()]
    return Target(receive, seeds, (*Target.refusals, DecodeError))


def _invitation(folder: Path) -> Target:
    bank, path = _node(folder, "bank", "bank"), folder / "invitation"
    pairing.invite(bank, path)

    def read(data: bytes) -> None:
        path.write_bytes(data)
        pairing._read(path, _NOW)

    return Target(read, [path.read_bytes()])


def _certificate(folder: Path) -> Target:
    """The certificate a client presents, as DER."""
    bank, shop = _pair(folder)
    invitation, _ = shop.authority().issue(INVITATION, _NOW, INVITATION_LIFETIME)

    def receive(data: bytes) -> None:
        pem = ssl.DER_cert_to_PEM_cert(data).encode()
        with shop.reading() as conn:
            peers.authenticate(conn, pem, shop.identity.authority_pem)

    return Target(receive, [_der(bank.certificate()), _der(invitation)])


def _authority(folder: Path) -> Target:
    """The certificate that a partner signs its own with, as DER."""
    bank = _node(folder, "bank", "bank")

    def receive(data: bytes) -> None:
        load_authority(ssl.DER_cert_to_PEM_cert(data))

    return Target(receive, [_der(bank.authority().certificate)])


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


# Unary calls of a paired partner, and its answers


def _offered(bank: Node, agreement: Agreement) -> Registered:
    """An agreement with the bank's signature."""
    with bank.writing() as conn:
        register = Register("bank", bank.log, bank.signing_keys())
        held = register.propose(conn, agreement, by="li", time=_NOW)
        return register.sign(conn, held, bank.signing_key, by="li", time=_NOW)


def _offer_agreement(folder: Path) -> Target:
    bank, shop = _pair(folder)
    offer = _offered(bank, Agreement.from_yaml(AGREEMENT.decode())).envelope.to_json()
    return Target(lambda data: agreements.receive(shop, bank.identity, data), [offer])


def _witness_request(folder: Path) -> Target:
    bank, shop = _pair(folder)
    with bank.reading() as conn:
        request = witness.request(conn, bank.log, 0).encode()
    return Target(lambda data: witnessing.answer(shop, bank.identity, data), [request])


def _witness_answer(folder: Path) -> Target:
    """The answer's status (2 bytes) and its body."""
    bank, shop = _pair(folder)
    key = VerifierKey.parse(bank.identity.witness_key)
    with shop.reading() as conn:
        sent = witness.request(conn, shop.log, 0)

    def receive(data: bytes) -> None:
        answer = Answer(int.from_bytes(data[:2]), data[2:])
        with shop.writing() as conn:
            witness.receive(conn, shop.log, key, sent, answer)

    line = cosign(sent.checkpoint.text, key.name, bank.witness_signing_key, _NOW)
    return Target(receive, [(200).to_bytes(2) + f"{line}\n".encode(), (409).to_bytes(2) + b"1\n"])


_KNOWN = "fedcba9876543210" * 2  # a run of both, which is over


def _withdrawal(bank: Node) -> withdrawal.Notice:
    found = [Presence(_KNOWN, "credit-offers", "credit-offer", "shop", ("0123456789abcdef",))]
    with bank.writing() as conn:
        (notice,) = withdrawal.announce(
            conn, bank.log, bank.signing_key, found, institution="bank", time=_NOW
        )
    return notice


def _withdrawal_notice(folder: Path) -> Target:
    """What a partner signs, rightly whatever it says."""
    bank, shop = _pair(folder)
    with shop.writing() as conn:
        start = {"job": "intersect", "agreement": "credit-offers", "peer": "bank"}
        runs.record_start(conn, _KNOWN, role="partner", now=_NOW, **start)
        runs.record_end(conn, _KNOWN, runs.COMPLETED, {}, _NOW)

    def receive(data: bytes) -> None:
        envelope = Envelope(withdrawal.PAYLOAD_TYPE, data).sign(bank.signing_key)
        parsed = Envelope.from_json(envelope.to_json())
        notice = withdrawal.check(parsed, bank.signing_key.public, sender="bank", recipient="shop")
        withdrawals._forget(shop, bank.identity, notice)
        with shop.writing() as conn:
            withdrawal.honour(conn, shop.log, notice, shop.signing_key, time=_NOW)

    return Target(receive, [_withdrawal(bank).envelope.payload])


def _withdrawal_acknowledgement(folder: Path) -> Target:
    """What a partner answers, as the store keeps it."""
    bank, shop = _pair(folder)
    notice = _withdrawal(bank)
    ours = witness.Witness(bank.witness_key.name, bank.witness_signing_key, [shop.log.verifier])
    with shop.writing() as conn:
        entry, signed = withdrawal.honour(conn, shop.log, notice, shop.signing_key, time=_NOW)
        shop.log.checkpoint(conn)
        sent = witness.request(conn, shop.log, 0)
    with bank.writing() as conn:
        cosigned = ours.add_checkpoint(conn, sent.encode(), _NOW)
    with shop.writing() as conn:
        witness.receive(conn, shop.log, ours.verifier, sent, cosigned)
        proof = shop.log.proof(conn, entry)
        (stored,) = shop.log.entries(conn, entry, entry + 1)
    answer = Acknowledgement(signed, stored.leaf, proof.encode())

    def receive(data: bytes) -> None:
        withdrawal.verify(
            notice,
            Acknowledgement.parse(data),
            key=shop.signing_key.public,
            their_log=shop.log.verifier,
            witness=bank.witness_key,
        )

    return Target(receive, [answer.encode()])


# Runs


class _Stream(StreamTransport):
    """A transport on which the peer says what the input says, whatever it is told."""

    def __init__(self, data: bytes) -> None:
        super().__init__(run_seconds=60, silence_seconds=60)
        self._script = frames.Script(data)

    def send(self, frame: bytes, /) -> None:
        pass

    def receive(self) -> bytes:
        return self._script.receive()

    def finish(self) -> None:
        pass


class _Alarm(logging.Handler):
    """A run's failures are logged, not raised; an unexpected one with its traceback."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.failure: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.failure = record.exc_info[1]


def _run(folder: Path) -> Target:
    """A run's frames; the run's name is made new each time, or no run but the first would start."""
    bank, shop = _pair(folder)
    _provide(shop, "shoppers", "bank", "purchase-history")
    shop.config.limits.attempts_per_day = 1 << 40
    agreement = _in_force(bank, shop)
    alarm, logger = _Alarm(), logging.getLogger("concordat.run")
    logger.addHandler(alarm)
    logger.propagate = False

    def serve(data: bytes) -> None:
        alarm.failure = None
        said = frames.join([_renamed(frame) for frame in frames.split(data)])
        session.serve_run(shop, bank.identity, _Stream(said))
        if alarm.failure is not None:
            raise alarm.failure

    inputs = _inputs(bank)
    signature = Signature(statement="intent", signature=bytes(64))
    hello = _hello(bank, agreement, Job.from_yaml(OVERLAP.decode()), "bank")
    return Target(serve, [frames.said(hello, inputs, signature)])


def _inputs(node: Node) -> Inputs:
    with node.reading() as conn:
        head = node.log.head(conn)
    assert head is not None
    return Inputs(
        root=bytes(32),
        size=3,
        log_origin=head.origin,
        log_size=head.size,
        log_root=head.root,
        log_checkpoint=head.encode().decode(),
    )


class _Answers(_Stream):
    """The same for the side that opened the run and gave it its name."""

    def __init__(self, data: bytes) -> None:
        super().__init__(b"")
        self._data = data

    def send(self, frame: bytes, /) -> None:
        if name := Frame.FromString(frame).hello.run:
            self._script = frames.Script(self._data.replace(_RUN.encode(), name.encode(), 1))


class _Client:
    """The partner's service, when a run is opened."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def run(self, seconds: float) -> _Answers:
        return _Answers(self._data)

    def add_checkpoint(self, body: bytes) -> tuple[int, bytes]:
        return 503, b""


def _answered_run(folder: Path) -> Target:
    """What the partner says in a run that the bank has opened."""
    bank, shop = _pair(folder)
    _provide(bank, "customers", "shop", "customer-profile")
    agreement = _in_force(bank, shop)
    logging.getLogger("concordat.run").propagate = False
    said: list[bytes] = []

    def dial(peer: Identity) -> Any:
        return nullcontext(_Client(said[0]))

    bank.dial = dial  # type: ignore[method-assign, assignment]

    def open_run(data: bytes) -> None:
        said[:] = [data]
        try:
            session.run_job(bank, OVERLAP.decode(), lambda *_: None, session.Control())
        except ConcordatError as error:
            assert error.code != InternalError.code, "what nobody foresaw"

    inputs = _inputs(shop)
    signature = Signature(statement="intent", signature=bytes(64))
    hello = _hello(shop, agreement, Job.from_yaml(OVERLAP.decode()), "partner")
    return Target(open_run, [frames.said(hello, inputs, signature)])


def _renamed(data: bytes) -> bytes:
    return data.replace(_RUN.encode(), token_hex(16).encode(), 1)


def _hello(node: Node, agreement: Agreement, job: Job, role: str) -> Hello:
    return Hello(
        protocol_version=session.PROTOCOL_VERSION,
        run=_RUN,
        agreement_digest=agreement.digest,
        suite=session.SUITE,
        role=role,
        party=node.config.name,
        job=job.shared,
        signing_key=node.signing_key.public,
        code_version="0.1.0",
        time=timestamp(_NOW),
    )


def _in_force(bank: Node, shop: Node) -> Agreement:
    """An agreement signed by both, known to both. It allows as many runs as there can be."""
    text = AGREEMENT.decode().replace("runs_per_day: 20", "runs_per_day: 10000")
    offer = _offered(bank, Agreement.from_yaml(text)).envelope.to_json()
    agreements.receive(shop, bank.identity, offer)
    with shop.writing() as conn:
        register = Register("shop", shop.log, shop.signing_keys())
        held = register.propose(conn, Agreement.from_yaml(text), by="wu", time=_NOW)
        held = register.sign(conn, held, shop.signing_key, by="wu", time=_NOW)
    agreements.receive(bank, shop.identity, held.envelope.to_json())
    return held.agreement


def _provide(node: Node, dataset: str, recipient: str, category: str) -> None:
    """The node's table, and consents of everyone in it."""
    home = node.home
    phones = [f"139{number:08d}" for number in _PEOPLE]
    table = ["phone,spend,days", *(f"{phone},10.5,7" for phone in phones)]
    (home.path / "table.csv").write_text("\n".join(table))
    identifier = "{column: phone, kind: phone}"
    datasets = f"datasets: {{{dataset}: {{path: table.csv, identifier: {identifier}}}}}\n"
    home.config_file.write_text(home.config_file.read_text() + datasets)
    node.config = home.config()
    times = "2026-01-01T00:00:00Z,2030-01-01T00:00:00Z,"
    terms = f"credit-offer,{recipient},{category},separate,{times}"
    header = "phone,purpose,recipient,categories,kind,granted_at,expires_at,withdrawn_at"
    path = home.path / "consents.csv"
    path.write_text("\n".join([header, *(f"{phone},{terms}" for phone in phones)]))
    assert consents.import_file(node, path)["new"] == len(phones)


TARGETS: dict[str, Setup] = {
    "identity": _identity,
    "invitation": _invitation,
    "certificate": _certificate,
    "authority": _authority,
    "offer-agreement": _offer_agreement,
    "witness-request": _witness_request,
    "witness-answer": _witness_answer,
    "withdrawal-notice": _withdrawal_notice,
    "withdrawal-acknowledgement": _withdrawal_acknowledgement,
    "run": _run,
    "answered-run": _answered_run,
}
