"""Two paired nodes with tables, consents and an agreement that both have signed."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pandas as pd

from parties import agreements, consents, pairing, runs, session
from parties.node import Node
from protos.errors import ConcordatError

AGREEMENT = """\
agreement: offers
version: {version}
parties: {{bank: bank, partner: shop}}
purpose: credit-offer
legal_basis: consent
valid: {{from: 2025-01-01T00:00:00+08:00, until: 2035-01-01T00:00:00+08:00}}
retention_days: 365
impact_assessment: none made
data:
  bank: {{dataset: customers, identifier: phone, categories: [profile]}}
  partner:
    dataset: shoppers
    identifier: phone
    categories: [purchases]
    features:
      spend: {{unit: CNY, lower: 0, upper: 1000, decimals: 0, bins: [100, 300, 500]}}
segmentation:
  - label: age
    column: age
    bands: [{{label: "-39", upper: 39}}, {{label: "40-"}}]
jobs:
  overlap: {{}}
  intersect: {{partner_learns: {partner_learns}}}
  insight:
    minimum_group: 10
    release: exact
    key_bits: 2048
    exponents: full
    statistics: [count, sum, mean]
  lookup: {{features: [spend], people_per_day: 1000000, epoch_hours: 24}}
  score:
    features: [spend]
    people_per_day: 1000000
    epoch_hours: 24
    key_bits: 2048
limits: {{runs_per_day: 1000}}
"""

FEATURES = "features: {spend: [sum, mean]}\n"


def phones(start: int, stop: int) -> pd.Series:
    return "+86" + pd.Series(range(13_900_000_000 + start, 13_900_000_000 + stop)).astype(str)


# Who is in the tables, and who of them consented: the first few of either did not.
CUSTOMERS, SHOPPERS = (0, 120), (60, 180)
ASKED_CUSTOMERS, ASKED_SHOPPERS = (5, 120), (65, 180)
SHARED = list(phones(65, 120))


def customers() -> pd.DataFrame:
    ids = phones(*CUSTOMERS)
    return pd.DataFrame({"phone": ids, "age": [25 if i % 2 else 52 for i in range(len(ids))]})


def shoppers() -> pd.DataFrame:
    ids = phones(*SHOPPERS)
    return pd.DataFrame({"phone": ids, "spend": [7 * i for i in range(len(ids))]})


def consent_table(ids: pd.Series, recipient: str, category: str, **change: str) -> pd.DataFrame:
    columns = {
        "purpose": "credit-offer",
        "recipient": recipient,
        "categories": category,
        "kind": "separate",
        "granted_at": "2025-06-01T09:00:00+08:00",
        "expires_at": "2034-12-31T00:00:00+08:00",
        "withdrawn_at": "",
    }
    return pd.DataFrame({"phone": ids}).assign(**(columns | change))


def add_dataset(node: Node, name: str, table: pd.DataFrame) -> None:
    path = node.home.path / f"{name}.csv"
    table.to_csv(path, index=False)
    with node.home.config_file.open("a", encoding="utf-8") as file:
        file.write(
            f"datasets:\n  {name}:\n    path: {path.name}\n"
            "    identifier: {column: phone, kind: phone, region: CN}\n"
        )
    node.config = node.home.config()


def import_consents(node: Node, table: pd.DataFrame) -> None:
    path = node.home.path / "consents.csv"
    table.to_csv(path, index=False)
    assert not consents.import_file(node, path)["rejected"]


def withdraw(node: Node, ids: pd.Series, recipient: str, category: str) -> None:
    now = node.now().isoformat(timespec="seconds")
    import_consents(node, consent_table(ids, recipient, category, withdrawn_at=now))


def agree(
    bank: Node,
    shop: Node,
    *,
    version: int = 1,
    partner_learns: str = "size",
    people_per_day: int = 1_000_000,
) -> None:
    path = bank.home.path / "agreement.yaml"
    text = AGREEMENT.format(version=version, partner_learns=partner_learns)
    path.write_text(text.replace("day: 1000000", f"day: {people_per_day}"))
    agreements.propose(bank, path)
    agreements.sign(shop, "offers", version)


def pair(bank: Node, shop: Node) -> None:
    invitation = bank.home.path / "invitation"
    pairing.invite(bank, invitation)
    pairing.accept(shop, invitation, bank.identity.fingerprint)


def make_ready(bank: Node, shop: Node, paillier_key: bytes) -> None:
    """Everything that a job needs; both nodes are served."""
    pair(bank, shop)
    add_dataset(bank, "customers", customers())
    add_dataset(shop, "shoppers", shoppers())
    import_consents(bank, consent_table(phones(*ASKED_CUSTOMERS), "shop", "profile"))
    import_consents(shop, consent_table(phones(*ASKED_SHOPPERS), "bank", "purchases"))
    for node in (bank, shop):
        for name in ("paillier-2048", "paillier-scores-2048"):
            node.home.key(name).write_bytes(paillier_key)
    agree(bank, shop)


# Jobs


def job(kind: str, *, agreement: str = "offers", purpose: str = "credit-offer") -> str:
    text = f"job: {kind}\nagreement: {agreement}\npurpose: {purpose}\n"
    return text + FEATURES if kind == "insight" else text


def run(
    bank: Node, kind: str, listen: session.Listener = lambda *_: None, **more: str
) -> dict[str, Any]:
    return session.run_job(bank, job(kind, **more), listen, session.Control())


class Running:
    """A job in a thread of its own."""

    def __init__(self, bank: Node, text: str, listen: session.Listener = lambda *_: None) -> None:
        self.control = session.Control()
        self.report: dict[str, Any] | None = None
        self.error: ConcordatError | None = None

        def work() -> None:
            try:
                self.report = session.run_job(bank, text, listen, self.control)
            except ConcordatError as error:
                self.error = error

        self._thread = threading.Thread(target=work)
        self._thread.start()

    def join(self, seconds: float = 20) -> "Running":
        self._thread.join(seconds)
        assert not self._thread.is_alive()
        return self


class Pause:
    """Holds a job at a stage until it is let go."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self.reached = threading.Event()
        self.go = threading.Event()

    def __call__(self, run: str, stage: str, done: int, total: int) -> None:
        if stage == self._stage and not self.reached.is_set():
            self.reached.set()
            assert self.go.wait(20)


def paused(bank: Node, kind: str, stage: str) -> AbstractContextManager[tuple["Running", "Pause"]]:
    return paused_job(bank, job(kind), stage)


@contextmanager
def paused_job(bank: Node, text: str, stage: str) -> Iterator[tuple[Running, Pause]]:
    pause = Pause(stage)
    running = Running(bank, text, pause)
    try:
        assert pause.reached.wait(20)
        yield running, pause
    finally:
        pause.go.set()
        running.join()


# Looking at what became of it


def until(true: Callable[[], Any], seconds: float = 10) -> Any:
    """Wait for what another thread is about to do."""
    deadline = time.monotonic() + seconds
    while not (value := true()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)
    return value


class Watch:
    """The runs a node takes part in from now on."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._before = len(node.runs())

    def new(self) -> list[dict[str, Any]]:
        """Oldest first."""
        with self._node.reading() as conn:
            rows = conn.exec_driver_sql(
                "SELECT id FROM runs ORDER BY rowid LIMIT -1 OFFSET ?", (self._before,)
            )
            return [runs.find_run(conn, run) for (run,) in rows.all()]

    def ended(self, count: int = 1) -> list[dict[str, Any]]:
        """So many runs, once none is under way."""

        def over() -> bool:
            new = self.new()
            return len(new) >= count and all(row["ended_at"] for row in new)

        until(over)
        assert len(self.new()) == count
        return self.new()


def log_of(node: Node, run: str) -> list[dict[str, Any]]:
    """The log's entries about a run."""
    with node.reading() as conn:
        rows = conn.exec_driver_sql(
            'SELECT leaf FROM log_entries WHERE run = ? ORDER BY "index"', (run,)
        )
        return [json.loads(leaf) for (leaf,) in rows.all()]


def run_threads() -> list[str]:
    """What is left of runs in this process."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("run")]
