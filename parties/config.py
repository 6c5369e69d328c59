"""A node's home: its folder, its configuration file, and where everything in it lies."""

import json
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from compliance import document
from compliance.activities import Stated
from compliance.choices import Sector
from compliance.errors import MalformedNote
from compliance.note import COSIGNATURE, ED25519, VerifierKey
from parties.errors import ConfigError, HomeExists, HomeUnusable, NoHome
from parties.identity import NAME
from parties.sources import Dataset, Region

_MEND = "Mend the file; docs/reference/config.yaml is a complete example."
_MAX_THREADS = 512  # each has a stack; more only get in each other's way


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not re.fullmatch(r"[^\s:]+", host) or not re.fullmatch(r"[0-9]{1,5}", port):
        raise ValueError("must be HOST:PORT")
    if not 0 < int(port) < 1 << 16:
        raise ValueError("must have a port from 1 to 65535")
    return text


Address = Annotated[str, AfterValidator(_address)]


class Limits(BaseModel):
    """What a partner may make this node do."""

    model_config = ConfigDict(extra="forbid")

    frame_bytes: int = Field(4 << 20, ge=1 << 16, le=64 << 20)
    rows: int = Field(20_000_000, ge=1)
    run_seconds: int = Field(6 * 3600, ge=1)
    silence_seconds: int = Field(600, ge=1)
    calls: int = Field(8, ge=4, le=16)
    attempts_per_day: int = Field(1000, ge=1)


def _witness_key(text: str) -> str:
    try:
        kind = VerifierKey.parse(text).kind
    except MalformedNote:
        kind = ED25519
    if kind != COSIGNATURE:
        raise ValueError("must be a witness's verifier key, NAME+ID+KEY")
    return text


class ThirdWitness(BaseModel):
    """A witness that is no partner: its service, and the key its cosignatures are held to."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$")  # as agreements call it
    url: str = Field(pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$")
    key: Annotated[str, AfterValidator(_witness_key)]
    authority: Path | None = None  # PEM; those the system trusts, if it is not set

    @property
    def verifier(self) -> VerifierKey:
        return VerifierKey.parse(self.key)


def _distinct(witnesses: list[ThirdWitness]) -> list[ThirdWitness]:
    for names in ([one.name for one in witnesses], [one.verifier.name for one in witnesses]):
        if len(names) != len(set(names)):
            raise ValueError("must each have a name and a key of their own")
    return witnesses


class Config(BaseModel):
    """The file `config.yaml` of a node's home."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=rf"^{NAME.pattern}$")
    sector: Sector
    listen: Address
    address: Address
    store: str = "sqlite:///concordat.db"
    metrics: Address | None = None
    threads: int = Field(0, ge=0, le=_MAX_THREADS)
    region: Region = "CN"
    limits: Limits = Limits()
    datasets: dict[str, Dataset] = {}
    witnesses: Annotated[list[ThirdWitness], AfterValidator(_distinct)] = []
    record: Stated = Stated()


class Home:
    """Paths inside a node's home."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    @property
    def running_file(self) -> Path:
        """Exists while the node serves: process id and admin socket."""
        return self.path / "running.json"

    def key(self, name: str) -> Path:
        return self.path / "keys" / name

    def certificate(self, name: str) -> Path:
        return self.path / "certificates" / f"{name}.pem"

    def run_folder(self, run: str) -> Path:
        """Where a run's files are kept; made if it is not there."""
        folder = self.path / "runs" / run
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def report_file(self, run: str) -> Path:
        """Where a run's report is kept."""
        return self.path / "reports" / f"{run}.html"

    def config(self) -> Config:
        """The checked configuration. Raises NoHome, ConfigError."""
        if not self.config_file.is_file():
            raise NoHome(
                f"{self.path} is not a node's home: it has no config.yaml.",
                "Make one with `concordat init HOME --name NAME --sector SECTOR`, or name another.",
            )
        try:
            fields = document.load(self.read(self.config_file).decode())
        except (document.DocumentError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self.config_file} is not YAML: {error}.", _MEND) from error
        try:
            return Config.model_validate(fields)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "the file"
            problem = first["msg"].removeprefix("Value error, ")
            raise ConfigError(f"{self.config_file}: {place}: {problem}.", _MEND) from error

    def read(self, path: Path) -> bytes:
        """A file of the home. Raises HomeUnusable."""
        try:
            return path.read_bytes()
        except OSError as error:
            raise HomeUnusable(
                f"{path} cannot be read: {error.strerror}.",
                "Restore it from a backup, or give the node's user permission to read it.",
            ) from error

    def store_url(self, config: Config) -> str:
        """The database URL, with a relative SQLite path taken from the home."""
        prefix, _, path = config.store.partition("sqlite:///")
        if prefix or not path or path.startswith("file:"):
            return config.store
        return f"sqlite:///{self.path / path}"

    def create(self, name: str, sector: Sector, address: str, store: str | None = None) -> Config:
        """Lay out a new home; `store` is a database's URL where it is not to be in the home.

        Raises HomeExists, ConfigError, HomeUnusable; touches nothing that was there.
        """
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise HomeExists(
                f"{self.path} exists and is not empty.",
                "Choose a folder that does not exist yet; nothing was changed.",
            )
        if not NAME.fullmatch(name):
            raise ConfigError(
                f"{name!r} cannot be a node's name.",
                "Use lower-case letters, digits and hyphens: it becomes a DNS name.",
            )
        try:
            _address(address)
        except ValueError as error:
            raise ConfigError(
                f"{address!r} is not an address: it {error}.",
                "Give --address as HOST:PORT, where partners reach the node, or leave it out.",
            ) from error
        config = Config(name=name, sector=sector, listen=address, address=address)
        if store is not None:
            config.store = store
        self.path.mkdir(parents=True, exist_ok=True)
        self.path.chmod(0o700)
        for folder in ("keys", "certificates", "runs"):
            (self.path / folder).mkdir(mode=0o700)
        # JSON's quotes are YAML's.
        values = config.model_dump() | ({} if store is None else {"store": json.dumps(store)})
        self.config_file.write_text(_TEMPLATE.format(**values), "utf-8")
        self.config_file.chmod(0o600)
        return config


_TEMPLATE = """\
# A Concordat node. Every setting: docs/reference/config.yaml
name: {name}
sector: {sector}
listen: {listen}        # where this node listens
address: {address}       # where partners reach it
store: {store}
region: {region}                   # of phone numbers without a country code, in consents
threads: {threads}                   # 0: half the cores, so that two nodes fit on one machine

# The tables that agreements may name. For example:
# datasets:
#   customers:
#     path: customers.csv
#     identifier: {{column: phone, kind: phone, region: CN}}
#     duplicates: error
"""
