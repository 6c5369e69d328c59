from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import make

from compliance.errors import StoreReadOnly
from parties.config import Home
from parties.errors import ConfigError, HomeExists, HomeUnusable, NoHome
from parties.node import Node
from protos.errors import ConcordatError

ROOT = Path(__file__).parents[2]


def test_a_new_home_is_private_and_loads(tmp_path: Path) -> None:
    node = make(tmp_path, "bank")
    assert node.config.name == "bank"
    assert node.home.path.stat().st_mode & 0o777 == 0o700
    for secret in (node.home.path / "keys").iterdir():
        assert secret.stat().st_mode & 0o777 == 0o600
    assert (node.home.path / "concordat.db").stat().st_mode & 0o777 == 0o600


def test_a_folder_in_use_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(HomeExists):
        Node.create(Home(tmp_path), "bank", "bank", None)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("name", ["", "Bank", "a_b", "-a", "a-", "a.b", "a" * 64, "bank\n"])
def test_a_name_must_be_a_dns_label(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError):
        Node.create(Home(tmp_path / "home"), name, "bank", None)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("address", ["nonsense", "host:", "host:http", "host:70000", "a b:1"])
def test_an_address_must_be_one(tmp_path: Path, address: str) -> None:
    with pytest.raises(ConfigError, match="is not an address"):
        Node.create(Home(tmp_path / "home"), "bank", "bank", address)
    assert not (tmp_path / "home").exists()


def test_a_place_where_no_home_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(HomeUnusable):
        Node.create(Home(tmp_path / "file" / "home"), "bank", "bank", None)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_text("garbage")])
@pytest.mark.parametrize(
    "name",
    [
        "certificates/authority.pem",
        "certificates/node.pem",
        "keys/authority",
        "keys/node",
        "keys/signing",
        "keys/log",
        "keys/witness",
        "keys/lookup",
        "keys/wrapping",
        "concordat.db",
    ],
)
def test_a_missing_or_spoilt_file_is_a_numbered_error(
    tmp_path: Path, name: str, spoil: Callable[[Path], object]
) -> None:
    node = make(tmp_path, "bank")
    node.store.dispose()  # nothing is left beside the database
    home = node.home
    spoil(home.path / name)
    with pytest.raises(ConcordatError) as failed:
        opened = Node.open(home)
        if name == "keys/node":
            opened.server_credentials()
        opened.renew_certificate()
    assert failed.value.code in {"E404", "E504", "E631", "E704", "E708"}
    assert failed.value.next_step
    if name == "concordat.db":
        assert (home.path / name).exists() == (failed.value.code == "E704")


def test_a_folder_without_configuration_is_no_home(tmp_path: Path) -> None:
    with pytest.raises(NoHome, match=str(tmp_path)):
        Node.open(Home(tmp_path))


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("surprise: 1", "surprise"),
        ("threads: -1", "threads"),
        ("threads: 9999", "threads"),
        ("listen: nowhere", "listen"),
        ("address: bank.example:0", "address"),
        ("address: bank.example:65536", "address"),
        ("name: another", "made for 'bank'"),
        ("datasets: {t: {path: t.xls, identifier: {column: a, kind: phone}}}", "datasets.t.path"),
        ("datasets: {t: {path: t.csv, identifier: {column: a, kind: fax}}}", "identifier.kind"),
        ("limits: {rows: many}", "limits.rows"),
        (": [", "not YAML"),
        ("region: " + "[" * 5000, "nested deeper"),
        ("threads: " + "1" * 5000, "threads"),
        ("region: 2026-99-99", "region"),
    ],
)
def test_a_mistake_in_the_configuration_is_named(tmp_path: Path, line: str, place: str) -> None:
    home = make(tmp_path, "bank").home
    name = line.partition(":")[0]
    kept = [old for old in home.config_file.read_text().splitlines() if not old.startswith(name)]
    home.config_file.write_text("\n".join([*kept, line]) if name else line)
    with pytest.raises(ConfigError, match=place):
        Node.open(home)


def test_no_is_a_region_and_not_a_refusal(tmp_path: Path) -> None:
    home = make(tmp_path, "bank").home
    home.config_file.write_text(home.config_file.read_text().replace("region: CN", "region: NO"))
    assert home.config().region == "NO"


def test_a_configuration_that_is_not_utf8_is_said_to_be_none(tmp_path: Path) -> None:
    home = make(tmp_path, "bank").home
    home.config_file.write_bytes(b"name: \xff")
    with pytest.raises(ConfigError, match="not YAML"):
        home.config()


def test_a_relative_store_lies_in_the_home_and_others_where_they_say(tmp_path: Path) -> None:
    node = make(tmp_path, "bank")
    assert node.home.store_url(node.config) == f"sqlite:///{node.home.path}/concordat.db"
    for url in ("sqlite:////var/lib/c.db", "postgresql://db/c"):
        node.config.store = url
        assert node.home.store_url(node.config) == url


def test_a_read_only_store_can_be_read(tmp_path: Path) -> None:
    home = make(tmp_path, "bank").home
    text = home.config_file.read_text()
    uri = f'"sqlite:///file:{home.path}/concordat.db?mode=ro&uri=true"'
    home.config_file.write_text(text.replace("sqlite:///concordat.db", uri))
    node = Node.open(home)
    assert node.runs() == []
    with pytest.raises(StoreReadOnly), node.writing() as conn:
        node.log.append(conn, "test", {}, time=node.now())
