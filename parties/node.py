"""An institution's node: its home opened, with everything a verb needs."""

import getpass
import logging
import os
import random
import shutil
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from copy import copy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from sqlalchemy import Connection

from compliance import (  # noqa: F401 (their tables)
    consent,
    differencing,
    erasure,
    gate,
    lifecycle,
    people,
    receipt,
    register,
    succession,
    withdrawal,
    witness,
)
from compliance.choices import Sector
from compliance.log import Log, tree_size
from compliance.note import COSIGNATURE, VerifierKey
from compliance.signing import SigningKey
from compliance.store import open_store, read, scrub, write
from compliance.succession import KINDS, OWN, PEERS, Entered, KeyRing, Kind
from compliance.vault import WRAPPING_KEYS, VaultKeys, create_key
from federated import _native
from federated._native import SecretKey
from federated.paillier import keys
from parties import peers, periods, results, runs, tables
from parties.config import Home
from parties.errors import (
    Busy,
    ConfigError,
    HandshakeRefused,
    HomeUnusable,
    Interrupted,
    UnknownRun,
)
from parties.files import write_private
from parties.identity import (
    NODE_LIFETIME,
    UNREADABLE,
    Authority,
    Identity,
    certificate_pem,
    key_pem,
    load_authority,
    load_key,
    log_name,
    san_of,
    witness_name,
)
from parties.sources import Dataset
from parties.wire import Cancellable, PeerClient, dial
from protos.errors import ConcordatError

WARN_DAYS = 30  # before its certificate expires
CREATED = "node.created"  # the first entry of every node's log
PAIRED = "peer.paired"


class Node:
    """Opened by each command for itself; several may be open at once."""

    def __init__(self, home: Home, *, create_store: bool = False) -> None:
        """Raises NoHome, ConfigError, HomeUnusable, KeyFileError, E70x."""
        self.home = home
        self.now: Callable[[], datetime] = lambda: datetime.now(UTC)
        self.config = home.config()
        _native.set_threads(self.config.threads)
        name = self.config.name
        self.logger = logging.getLogger("concordat.node")
        authority = home.read(home.certificate("authority")).decode("latin-1")
        try:
            self.authority_certificate = load_authority(authority)
        except HandshakeRefused as error:
            raise _unusable(home.certificate("authority")) from error
        if san_of(self.certificate()) != name:
            raise ConfigError(
                f"{home.config_file} calls the node {name!r}; its keys and certificates were made "
                f"for {san_of(self.certificate())!r}.",
                "Put that name back: partners, consents and agreements know the node by it. For "
                "another name, make another node with `concordat init`.",
            )
        self.store = open_store(home.store_url(self.config), create=create_store)
        self.vault_files = erasure.Files(
            home.key("lookup"), home.key("wrapping"), home.path / "erased"
        )
        self._authority_pem = authority
        self._keys_read: tuple[tuple[int, ...], dict[Kind, SigningKey]] | None = None
        self._entered: list[Entered] = []  # the successions of keys, up to an entry of the log
        self._entered_until = 0
        _ = self._keys  # they can be read
        self.actor = people.Actor(_person())  # who uses this node, as `parties.people` knows them
        self.pinned_witnesses: dict[str, str] = {}  # keys by name, of those known to be in the log
        self.jobs_asked: set[int] = set()  # the entries that a job was run for
        self.tables = tables.Tables()
        self.copies = tables.Copies(home)
        self.settle_keys()
        self._catch_up()
        periods.expire(self)
        self._running = threading.Lock()
        self.unsettled = False  # whether how a run ended could not be recorded
        self.honouring = threading.Lock()  # one withdrawal notice at a time
        self.controls: dict[str, Cancellable] = {}  # of the runs under way, by their ids
        self.stages: dict[str, runs.Stages] = {}  # the same

    @classmethod
    def open(cls, home: Home) -> "Node":
        return cls(home)

    def used_by(self, actor: people.Actor) -> Self:
        """The same node, as this person uses it."""
        node = copy(self)
        node.actor = actor
        return node

    @classmethod
    def create(
        cls,
        home: Home,
        name: str,
        sector: Sector,
        address: str | None,
        store: str | None = None,
    ) -> "Node":
        """Make a home and open it; `store` is a database's URL, a file in the home unless given.

        Raises HomeExists, ConfigError, HomeUnusable, E70x.
        """
        new = not home.path.exists()
        try:
            home.create(name, sector, address or f"127.0.0.1:{_free_port()}", store)
            return cls._make(home, name)
        except Exception as error:
            if new:
                shutil.rmtree(home.path, ignore_errors=True)
            if not isinstance(error, OSError):
                raise
            raise HomeUnusable(
                f"The node could not be made in {home.path}: {error.strerror}.",
                "See that the disk has room and that this user may write there.",
            ) from error

    @classmethod
    def _make(cls, home: Home, name: str) -> "Node":
        now = datetime.now(UTC)
        authority = Authority.create(name, now)
        certificate, key = authority.issue(name, now, NODE_LIFETIME)
        home.certificate("authority").write_bytes(certificate_pem(authority.certificate))
        home.certificate("node").write_bytes(certificate_pem(certificate))
        write_private(home.key("authority"), key_pem(authority.key))
        write_private(home.key("node"), key_pem(key))
        for purpose in ("signing", "log", "witness"):
            SigningKey.generate().save(home.key(purpose))
        create_key(home.key("lookup"))
        create_key(home.key("wrapping"), WRAPPING_KEYS)
        node = cls(home, create_store=True)
        with node.writing() as conn:
            if tree_size(conn):
                raise ConfigError(
                    "The database holds a store of another node.",
                    "Name an empty database, or a new schema of its own in this one.",
                )
            body = {"fingerprint": node.identity.fingerprint}
            node.log.append(conn, CREATED, body, time=now)
            node.log.checkpoint(conn)
        return node

    # Keys that sign

    @property
    def _keys(self) -> dict[Kind, SigningKey]:
        """As they are now: another process may have rotated them. Raises KeyFileError."""
        paths = {kind: self.home.key(kind) for kind in KINDS}
        try:
            state = tuple(
                number
                for path in paths.values()
                for number in (path.stat().st_mtime_ns, path.stat().st_ino)
            )
        except OSError:
            state = ()  # loading them says what is wrong
        if self._keys_read is None or self._keys_read[0] != state or not state:
            loaded = {kind: SigningKey.load(path) for kind, path in paths.items()}
            self._keys_read = state, loaded
        return self._keys_read[1]

    @property
    def signing_key(self) -> SigningKey:
        return self._keys["signing"]

    @property
    def log(self) -> Log:
        return Log(log_name(self.config.name), self._keys["log"])

    @property
    def witness_signing_key(self) -> SigningKey:
        return self._keys["witness"]

    @property
    def witness_key(self) -> VerifierKey:
        name = witness_name(self.config.name)
        return VerifierKey(name, self.witness_signing_key.public, COSIGNATURE)

    @property
    def identity(self) -> Identity:
        keys = self._keys
        return Identity(
            name=self.config.name,
            sector=self.config.sector,
            address=self.config.address,
            authority_pem=self._authority_pem,
            signing_key=keys["signing"].public,
            log_key=str(self.log.verifier),
            witness_key=str(self.witness_key),
        )

    def successor(self, kind: Kind) -> Path:
        """Where a new key lies until the log has introduced it."""
        return self.home.key(f"{kind}.new")

    def settle_keys(self) -> None:
        """Puts a new key in place once the log has introduced it; drops one that it has not."""
        for kind in KINDS:
            path = self.successor(kind)
            if not path.exists():
                continue
            with self.writing() as conn:  # nobody is in the middle of a rotation
                if not path.exists():
                    continue
                public = SigningKey.load(path).public
                own = [one for one in self.successions(conn) if (one.type, one.kind) == (OWN, kind)]
                if own and own[-1].succession and own[-1].succession.new == public:
                    path.replace(self.home.key(kind))
                else:
                    path.unlink()

    def successions(self, conn: Connection) -> list[Entered]:
        """Those of this node's and its partners' keys that the log tells of."""
        size = tree_size(conn)
        if size > self._entered_until:
            self._entered = [*self._entered, *succession.entered(conn, self._entered_until)]
            self._entered_until = size
        return self._entered

    # The vault

    @property
    def vault_keys(self) -> VaultKeys:
        """As they are now: another process may have rotated them. Raises VaultKey.

        To be read inside the transaction that uses them.
        """
        return self.vault_files.keys()

    def _catch_up(self) -> None:
        """Erase again whom a restored store has back; complete what a crash has interrupted."""
        with self.reading() as conn:
            if not erasure.behind(conn, self.vault_files):
                return
        with self.writing() as conn:
            erasure.catch_up(conn, self.log, self.vault_files, now=self.now())
            self.log.checkpoint(conn)
        self.destroy_old_keys()

    def destroy_old_keys(self) -> None:
        """After an erasure or a rotation: what opened the old secrets goes, and traces of rows."""
        with self.writing() as conn:
            erasure.settle(conn, self.vault_files)
        scrub(self.store, erasure.PEOPLE)

    # Storage

    def reading(self) -> AbstractContextManager[Connection]:
        return read(self.store)

    def writing(self) -> AbstractContextManager[Connection]:
        return write(self.store)

    def peers(self) -> list[Identity]:
        with self.reading() as conn:
            return peers.all_peers(conn)

    def peer(self, name: str) -> Identity:
        """Raises UnknownPeer."""
        with self.reading() as conn:
            return peers.find_peer(conn, name)

    def runs(self) -> list[dict[str, Any]]:
        with self.reading() as conn:
            return runs.list_runs(conn)

    def find_run(self, run: str) -> dict[str, Any]:
        """Raises UnknownRun."""
        with self.reading() as conn:
            return runs.find_run(conn, run)

    def knows_run(self, run: str) -> bool:
        with self.reading() as conn:
            return runs.exists(conn, run)

    def dataset(self, name: str, identifier: str) -> Dataset:
        """The table an agreement names. Raises ConfigError."""
        dataset = self.config.datasets.get(name)
        if dataset is None:
            raise ConfigError(
                f"The agreement names the dataset {name!r}, which this node does not have.",
                f"Add it under `datasets` in {self.home.config_file}.",
            )
        if dataset.identifier.kind != identifier:
            raise ConfigError(
                f"The agreement matches by {identifier}; the dataset {name!r} has "
                f"{dataset.identifier.kind}.",
                f"Name the column with the {identifier} in {self.home.config_file}.",
            )
        return dataset

    # Keys

    def authority(self) -> Authority:
        """Raises HomeUnusable."""
        path = self.home.key("authority")
        try:
            key = load_key(self.home.read(path))
        except (TypeError, ValueError, UnsupportedAlgorithm) as error:
            raise _unusable(path) from error
        return Authority(self.authority_certificate, key)

    def signing_keys(self) -> KeyRing:
        """Ed25519 public keys that sign agreements and receipts, by party: ours and the pinned."""
        with self.reading() as conn:
            return self.keyring(conn, peers.all_peers(conn))

    def keyring(self, conn: Connection, partners: Iterable[Identity]) -> KeyRing:
        """The signing keys of this node and these partners, with those before them."""
        entries, own = self.successions(conn), self.identity
        known = {one.name: one for one in (own, *partners)}
        past = {
            name: succession.history(
                entries, OWN if one is own else PEERS, name, "signing", one.signing_key
            )[0]
            for name, one in known.items()
        }
        return KeyRing({name: one.signing_key for name, one in known.items()}, past)

    def paillier_key(self, bits: int, *, scores: bool = False) -> SecretKey:
        """This node's key of that size for sums or for scores, made on first use.

        Two keys, because of sums a partner opens what the bank asks it to: among it could be the
        points of a scorecard, were they encrypted under the same key.
        """
        path = self.home.key(f"paillier-scores-{bits}" if scores else f"paillier-{bits}")
        if path.exists():
            try:
                return keys.load(self.home.read(path))
            except ValueError as error:
                raise _unusable(path) from error
        key = keys.generate(bits)
        write_private(path, keys.dump(key))
        return key

    def certificate(self) -> x509.Certificate:
        """Raises HomeUnusable."""
        path = self.home.certificate("node")
        try:
            return x509.load_pem_x509_certificate(self.home.read(path))
        except UNREADABLE as error:
            raise _unusable(path) from error

    def days_left(self) -> int:
        """Whole days until the node's certificate expires; negative if it has."""
        return (self.certificate().not_valid_after_utc - self.now()).days

    def expiry_warning(self) -> str | None:
        """What its institution should be told of the node's certificate, if it expires soon."""
        days = self.days_left()
        if days >= WARN_DAYS:
            return None
        when = f"expires in {days} days" if days >= 0 else "has expired"
        return (
            f"The node's certificate {when}. Renew it: concordat node renew {self.home.path}; "
            "partners need do nothing."
        )

    def renew_certificate(self) -> None:
        """A new key and certificate from the node's own authority; partners need do nothing.

        A serving node takes them for the next connection.
        """
        certificate, key = self.authority().issue(self.config.name, self.now(), NODE_LIFETIME)
        write_private(self.home.key("node"), key_pem(key), overwrite=True)
        write_private(self.home.certificate("node"), certificate_pem(certificate), overwrite=True)
        with self.writing() as conn:
            body = {"serial": f"{certificate.serial_number:x}"}
            self.log.append(conn, "node.renewed", body, time=self.now())
            self.log.checkpoint(conn)

    # Connections

    def _credentials(self) -> tuple[bytes, bytes]:
        """The node's key and certificate for TLS, PEM. Raises HomeUnusable."""
        path = self.home.key("node")
        key, certificate = self.home.read(path), self.home.read(self.home.certificate("node"))
        try:
            ours = x509.load_pem_x509_certificate(certificate)
            fits = ours.public_key() == load_key(key).public_key()
        except (*UNREADABLE, TypeError) as error:
            raise _unusable(path) from error
        problem = None
        if not fits:
            problem = f"{path} is not the key of the node's certificate."
        elif ours.not_valid_after_utc <= self.now():
            problem = f"The node's certificate expired on {ours.not_valid_after_utc:%Y-%m-%d}."
        if problem:
            raise HomeUnusable(
                problem, f"Make both anew: concordat node renew {self.home.path}; nothing is lost."
            )
        return key, certificate

    def dial(
        self, peer: Identity, credentials: tuple[bytes, bytes] | None = None
    ) -> AbstractContextManager[PeerClient]:
        """A connection to a partner, with this node's certificate or an invitation's."""
        key, certificate = credentials or self._credentials()
        return dial(
            peer,
            key_pem=key,
            certificate_pem=certificate,
            frame_bytes=self.config.limits.frame_bytes,
            silence_seconds=self.config.limits.silence_seconds,
        )

    def server_credentials(self) -> grpc.ServerCredentials:
        """Mutual TLS; a new certificate or partner counts from the next connection on.

        gRPC asks before each handshake. It is given a configuration only if there is a new one,
        because it frees the one before, which another handshake may be about to use.
        """

        def read() -> tuple[bytes, bytes, bytes]:
            # Our own authority signs invitations.
            known = [self.identity, *self.peers()]
            return (
                *self._credentials(),
                "".join(peer.authority_pem for peer in known).encode(),
            )

        def configuration(key: bytes, certificate: bytes, authorities: bytes) -> Any:
            return grpc.ssl_server_certificate_configuration([(key, certificate)], authorities)

        given = read()

        def changed() -> Any:
            nonlocal given
            try:
                last, given = given, read()
            except ConcordatError:  # in the middle of a renewal, or the store is locked
                return None
            return None if given == last else configuration(*given)

        return grpc.dynamic_ssl_server_credentials(
            configuration(*given), changed, require_client_authentication=True
        )

    # Runs

    def cancel(self, run: str) -> str:
        """Cancel the run under way whose id starts with these digits. Raises UnknownRun."""
        found = [known for known in self.controls if run and known.startswith(run)]
        if len(found) != 1:
            raise UnknownRun(
                f"No run whose id starts with {run!r} is under way here.",
                "`concordat job list HOME` shows what became of it.",
            )
        self.controls[found[0]].cancel()
        return found[0]

    @contextmanager
    def one_run(self) -> Iterator[None]:
        """One run at a time. Raises Busy."""
        if not self._running.acquire(blocking=False):
            raise Busy(
                f"{self.config.name}'s node is in another run.",
                "Wait for it to end; `concordat job list` shows it there.",
            )
        try:
            if self.unsettled:
                self.after_restart()
            yield
        finally:
            self._running.release()

    def after_restart(self) -> None:
        """Say what became of the runs under way when the node stopped, or its store was full.

        Those whose completion is in the log are complete; the others were interrupted.
        """
        now = self.now()
        with self.writing() as conn:
            for run in runs.under_way(conn):
                folder = self.home.run_folder(run)
                intent = receipt.find(conn, run, "intent")
                completion = receipt.find(conn, run, "completion")
                if intent and completion:
                    report = results.release(folder, intent.to_json(), completion.to_json())
                    runs.record_end(conn, run, runs.COMPLETED, report, now)
                    continue
                results.discard(folder)
                runs.record_interrupted(conn, run, now)
                body = {"run": run, "state": runs.INTERRUPTED, "error": Interrupted.code}
                self.log.append(conn, "run.ended", body, time=now)
            self.log.checkpoint(conn)
        self.unsettled = False


def _unusable(path: Path) -> HomeUnusable:
    return HomeUnusable(
        f"{path} does not hold what it should.", "Restore it from a backup; nothing was changed."
    )


def _person() -> str:
    """Who is at the keyboard, for the log."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container a user may have no name
        return f"user {os.getuid()}"


def _free_port() -> int:
    """A port nobody listens at, below those the system gives out to outgoing connections."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
