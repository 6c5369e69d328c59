"""People who do not exist, for the tables that docs/reference and the README speak of."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from parties import agreements, consents, pairing, server, session
from parties.config import Home
from parties.node import Node

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"

DATASETS = """
datasets:
  {name}:
    path: {name}.csv
    identifier: {{column: phone, kind: phone, region: CN}}
"""


@dataclass(frozen=True)
class People:
    """Whoever consented: the bank's with age and city, the shop's with its two features."""

    customers: pd.DataFrame
    shoppers: pd.DataFrame

    def shared(self) -> pd.DataFrame:
        """The plain join."""
        return self.customers.merge(self.shoppers, on="phone")


def write(folder: Path) -> People:
    """customers.csv, shoppers.csv, bank_consents.csv and shop_consents.csv in `folder`."""
    random = np.random.default_rng(7)
    phones = (13_900_000_000 + random.choice(100_000_000, 700, replace=False)).astype(str)
    customers = pd.DataFrame(
        {
            "phone": phones[:550],
            "age": random.choice([22, 29, 30, 44, 45, 71], 550),
            "city": random.choice(["north", "south", "abroad"], 550, p=[0.6, 0.3, 0.1]),
        }
    )
    shoppers = pd.DataFrame(
        {
            "phone": phones[100:],
            "spend_12m": random.uniform(0, 60_000, 600).round(2),
            "days_between_orders": random.integers(1, 366, 600),
        }
    )
    for name, table in (("customers", customers), ("shoppers", shoppers)):
        table.to_csv(folder / f"{name}.csv", index=False)
    sides = []
    for name, table, recipient, category in (
        ("bank", customers, "shop", "customer-profile"),
        ("shop", shoppers, "bank", "purchase-history"),
    ):
        asked = table[random.random(len(table)) < 0.95]
        consents = asked[["phone"]].assign(
            purpose="credit-offer",
            recipient=recipient,
            categories=category,
            kind="separate",
            granted_at="2026-01-05T09:00:00+08:00",
            expires_at="2035-01-01T00:00:00+08:00",
            withdrawn_at="",
        )
        consents.to_csv(folder / f"{name}_consents.csv", index=False)
        sides.append(asked)
    return People(*sides)


def reference_config(node: Node) -> None:
    """Gives a bank's node docs/reference/config.yaml, at free ports."""
    text = (REFERENCE / "config.yaml").read_text("utf-8")
    with socket.create_server(("127.0.0.1", 0)) as free:
        metrics = f"127.0.0.1:{free.getsockname()[1]}"
    for written, ours in (("127.0.0.1:23411", node.config.address), ("127.0.0.1:9411", metrics)):
        assert written in text
        text = text.replace(written, ours)
    node.home.config_file.write_text(text, "utf-8")


@contextmanager
def two_nodes(folder: Path) -> Iterator[tuple[Node, Node]]:
    """A bank with the reference configuration and a shop, serving, paired, agreed."""
    write(folder)
    bank = Node.create(Home(folder / "bank"), "bank", "bank", None)
    shop = Node.create(Home(folder / "shop"), "shop", "ecommerce", None)
    reference_config(bank)
    with shop.home.config_file.open("a", encoding="utf-8") as config:
        config.write(DATASETS.format(name="shoppers"))
    bank, shop = Node.open(bank.home), Node.open(shop.home)
    (folder / "customers.csv").rename(bank.home.path / "customers.csv")
    (folder / "shoppers.csv").rename(shop.home.path / "shoppers.csv")
    with server.serving(bank), server.serving(shop):
        pairing.invite(bank, folder / "invitation")
        pairing.accept(shop, folder / "invitation", bank.identity.fingerprint)
        for node in (bank, shop):
            consents.import_file(node, folder / f"{node.config.name}_consents.csv")
        agreements.propose(bank, REFERENCE / "agreement.yaml")
        agreements.sign(shop, "credit-offers")
        yield bank, shop


def run(bank: Node, job: str) -> dict[str, Any]:
    """Runs a job of docs/reference at the bank; its report."""
    text = (REFERENCE / job).read_text("utf-8")
    return session.run_job(bank, text, lambda *_: None, session.Control())
