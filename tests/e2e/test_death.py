"""Nodes killed with SIGKILL in the middle of a run, as processes of their own.

Whatever the moment: both logs verify, the other side ends soon with a numbered error, both sides
say what became of the run, nobody has a result without its receipt, and the next job works.
"""

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from ready import SHARED, agree, job, log_of, make_ready, until
from rich.console import Console

from compliance import receipt
from compliance.signing import Envelope
from federated.paillier import keys
from parties import admin, audits
from parties.config import Home
from parties.node import Node
from protos.errors import ConcordatError

MORTAL = Path(__file__).with_name("mortal.py")
SOON = 30  # seconds, also on a busy machine


class Institution:
    """A home, its node as a process, and its store as another process sees it."""

    def __init__(self, folder: Path, name: str, sector: str) -> None:
        self.node = Node.create(Home(folder / name), name, sector, None)
        self.home = self.node.home
        self.fate = folder / f"{name}.fate"
        self._log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, MORTAL, self.fate, "serve", self.home.path],
                stdout=log,
                stderr=log,
            )

    def ready(self) -> None:
        until(lambda: admin.ping(self.home), 60)

    def kill(self) -> None:
        assert self._process
        self._process.kill()

    def died(self) -> None:
        assert self._process
        assert self._process.wait(SOON) == -signal.SIGKILL
        self.fate.unlink(missing_ok=True)

    def stop(self) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait(SOON)

    def run(self, kind: str) -> dict[str, Any]:
        """A job, through the node's process."""
        path, people = self.home.path / f"{kind}.yaml", self.home.path / "people.csv"
        people.write_text("\n".join(["phone", *SHARED]))
        path.write_text(job(kind) + f"people: {people.name}\n" * (kind == "lookup"))
        return admin.run_job(self.home, path, None, Console(quiet=True))

    def record(self, run: str) -> dict[str, Any]:
        return self.node.find_run(run)

    def runs(self) -> set[str]:
        return {str(row["id"]) for row in self.node.runs()}


Nodes = tuple[Institution, Institution]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    folder = tmp_path_factory.mktemp("mortal")
    both = Institution(folder, "bank", "bank"), Institution(folder, "shop", "ecommerce")
    bank, shop = both
    try:
        for one in both:
            one.start()
        for one in both:
            one.ready()
        make_ready(bank.node, shop.node, keys.dump(keys.generate(2048)))
        agree(bank.node, shop.node, version=2, partner_learns="ids")
        for one in both:  # to read their configuration again
            one.stop()
            one.start()
        for one in both:
            one.ready()
        yield both
    finally:
        for one in both:
            one.stop()


def consequences(nodes: Nodes, run: str, then: str = "overlap") -> tuple[str, str]:
    """What became of a run on each side, once everything that must hold was found to hold."""
    states = []
    for one in nodes:
        row = one.record(run)
        types = [entry["type"] for entry in log_of(one.node, run)]
        folder = one.home.run_folder(run)
        files = {path.name for path in folder.iterdir()}
        completed = row["state"] == "completed"
        assert row["ended_at"]
        assert ("run.completion" in types) == completed
        if completed:
            intent, completion = (
                Envelope.from_json((folder / name).read_bytes())
                for name in ("intent.json", "receipt.json")
            )
            receipt.check(completion, intent, one.node.signing_keys())
            if one is nodes[0] or row["job"] == "intersect":
                assert Path(row["report"]["result_file"]).name in files
            assert not [name for name in files if "unreleased" in name]
        else:
            assert not files
            assert types[-1] == "run.ended"
            assert row["report"]["error"]["code"]
        states.append(row["state"])
    for one in nodes:
        verdict, not_asked = audits.verify(one.node)
        assert verdict.ok, verdict.report.findings
        assert not not_asked
    assert nodes[0].run(then)["state"] == "completed"
    return states[0], states[1]


LOST = "interrupted", "failed"
DEATHS = [
    # who dies, in which job, where; what the one that died and the other say of the run afterwards
    ("bank", "intersect", "before inputs 1", LOST),
    ("shop", "intersect", "after inputs 1", LOST),
    ("shop", "intersect", "before signature 1", LOST),
    ("bank", "intersect", "uncommitted run.intent", LOST),
    ("shop", "intersect", "logged run.intent", LOST),
    ("bank", "intersect", "after ready 1", LOST),
    ("bank", "intersect", "after points 1", LOST),
    ("shop", "intersect", "before points 2", LOST),
    ("shop", "insight", "after encrypted_rows 1", LOST),
    ("bank", "insight", "before masked_sums 1", LOST),
    ("shop", "insight", "before released_sums 1", LOST),
    ("shop", "lookup", "after table_rows 1", LOST),
    ("bank", "lookup", "before points 1", LOST),
    ("bank", "intersect", "uncommitted run.release", LOST),
    ("shop", "intersect", "logged run.release", LOST),
    ("bank", "intersect", "before commitment 1", LOST),
    ("bank", "intersect", "unplaced intersect.csv.unreleased", LOST),
    ("shop", "intersect", "placed intersect.csv.unreleased", LOST),
    ("shop", "intersect", "before signature 2", LOST),
    # From here on the other side has what it takes to complete the run.
    ("bank", "intersect", "after signature 2", ("interrupted", "completed")),
    ("shop", "intersect", "uncommitted run.completion", ("interrupted", "completed")),
    ("bank", "intersect", "logged run.completion", ("completed", "completed")),
    ("shop", "intersect", "placed receipt.json", ("completed", "completed")),
    ("bank", "intersect", "unrecorded", ("completed", "completed")),
]


@pytest.mark.parametrize(("who", "kind", "place", "states"), DEATHS)
def test_a_node_that_dies(
    nodes: Nodes, who: str, kind: str, place: str, states: tuple[str, str]
) -> None:
    bank, shop = nodes
    victim, other = (bank, shop) if who == "bank" else (shop, bank)
    known = victim.runs()
    victim.fate.write_text(place)
    started = time.monotonic()
    try:
        bank.run(kind)
    except ConcordatError as error:
        assert error.code in ({"E625"} if who == "bank" else {"E208"}), error
        assert error.next_step
    else:
        assert (who, states[1]) == ("shop", "completed")
    victim.died()
    (run,) = victim.runs() - known
    until(lambda: other.record(run)["ended_at"], SOON)
    assert time.monotonic() - started < SOON
    victim.start()
    victim.ready()
    found = consequences(nodes, run, then="lookup" if kind == "lookup" else "overlap")
    assert (found if who == "bank" else found[::-1]) == states


@pytest.mark.parametrize("who", ["bank", "shop", "both"])
def test_a_node_that_is_killed_at_any_moment(nodes: Nodes, who: str) -> None:
    """By a signal from outside, which knows nothing of what the node is doing."""
    bank, shop = nodes
    started = time.monotonic()
    bank.run("insight")
    whole = time.monotonic() - started
    known = bank.runs() | shop.runs()

    def work() -> None:
        with suppress(ConcordatError):
            bank.run("insight")

    running = threading.Thread(target=work)
    running.start()
    time.sleep(whole * random.Random().uniform(0.1, 0.9))
    victims = nodes if who == "both" else (bank,) if who == "bank" else (shop,)
    for victim in victims:
        victim.kill()
    for victim in victims:
        victim.died()
    running.join(SOON)
    assert not running.is_alive()
    for one in nodes:
        if one not in victims:
            until(lambda one=one: all(row["ended_at"] for row in one.node.runs()), SOON)
    for victim in victims:
        victim.start()
    for victim in victims:
        victim.ready()
    for one in nodes:
        assert all(row["ended_at"] for row in one.node.runs())
    for run in (bank.runs() & shop.runs()) - known:
        consequences(nodes, run)
    assert bank.run("overlap")["state"] == "completed"
