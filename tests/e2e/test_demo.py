"""The demo as a newcomer runs it, and what its nodes wrote down meanwhile."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from federated.identifiers import normalise

HOMES = ("bank", "shop", "telco")
TABLES = {"bank": "customers", "shop": "shoppers", "telco": "subscribers"}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("demo") / "kept"
    done = subprocess.run(
        [sys.executable, "-m", "parties", "demo", "--keep", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout + done.stderr


def test_it_tells_the_whole_story(demo: tuple[Path, str]) -> None:
    folder, said = demo
    assert said.count("$ concordat job run") == 13
    assert said.count("$ concordat recipe report") == 3
    assert re.search(r"difference +│.*│ +0\.0[56]", said)  # what the campaign has sold
    report = folder / "insight.html"
    assert said.count(str(report)) == 2 and report.stat().st_size > 1_000_000
    assert f" console {folder / 'bank'}\n" in said
    assert "E401" in said and "E310" in said  # refused by the gate, and by the agreement
    assert re.search(r"suppressed segments: 1\b", said)  # and by the threshold
    assert re.search(r"contacts +[0-9.]+ +large", said)  # the older call fewer people
    assert len(re.findall(r"asked: 3\d\n +found: \d\d\n", said)) == 2
    assert said.count("is whole and cosigned up to") == 3
    assert re.search(r"blinded points +0 of 4,000 customers named", said)
    named = re.search(r"plain SHA-256 +([\d,]+) of 4,000 customers named", said)
    assert named and int(named[1].replace(",", "")) > 1_000


def phones(folder: Path, name: str) -> set[bytes]:
    """Every phone number in a table, in the ways it may be written."""
    text = pd.read_csv(folder / f"{TABLES[name]}.csv", dtype=str)["phone"]
    canonical = normalise(text, "phone").ids.to_pandas()
    local = canonical.str.removeprefix("+86")
    return {number.encode() for column in (text, canonical, local) for number in column}


def numbers_in(path: Path) -> set[bytes]:
    """Whatever looks like a mobile number."""
    return set(re.findall(rb"1[3-9]\d{9}(?!\d)", path.read_bytes()))


def test_no_log_and_no_store_holds_an_identifier(demo: tuple[Path, str]) -> None:
    folder, said = demo
    known = set.union(*(phones(folder, name) for name in HOMES))
    assert len(known) > 10_000
    written = [folder / f"{name}.log" for name in HOMES]
    written += [path for name in HOMES for path in (folder / name).glob("concordat.db*")]
    assert len(written) >= 6
    for path in written:
        assert not numbers_in(path) & known, path
    assert not set(re.findall(rb"1[3-9]\d{9}(?!\d)", said.encode())) & known


def test_no_customer_of_one_side_is_named_at_another(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    tables = {name: phones(folder, name) for name in HOMES}
    for name in HOMES:
        foreign = set.union(*(tables[other] for other in HOMES if other != name)) - tables[name]
        for path in (folder / name).rglob("*"):
            if path.is_file():
                assert not numbers_in(path) & foreign, path


def test_the_log_lists_no_identifier(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    known = set.union(*(phones(folder, name) for name in HOMES))
    for name in HOMES:
        listed = subprocess.run(
            [sys.executable, "-m", "parties", "audit", "log", folder / name, "--json"],
            capture_output=True,
            check=True,
        ).stdout
        assert listed.count(b"\n") > 5
        assert not set(re.findall(rb"1[3-9]\d{9}(?!\d)", listed)) & known
