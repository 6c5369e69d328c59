"""What of an agreement and of the tables reaches the protocols, and what comes out as a file."""

from pathlib import Path

import pandas as pd
import pytest
from ready import SHARED, Watch, agree, run, shoppers

from federated.errors import PeerAborted
from parties.node import Node


def test_ids_are_a_sorted_column_named_after_their_kind(lasting: tuple[Node, Node]) -> None:
    bank, _ = lasting
    report = run(bank, "intersect")
    lines = "phone\n" + "".join(f"{phone}\n" for phone in sorted(SHARED))
    assert Path(report["result_file"]).read_bytes() == lines.encode()


@pytest.fixture
def nobody_lacks_it(ready: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch) -> tuple[Node, Node]:
    import ready as module  # the fixture has the same name

    declared = module.AGREEMENT.replace("decimals: 0", "decimals: 0, may_be_missing: false")
    assert declared != module.AGREEMENT
    monkeypatch.setattr(module, "AGREEMENT", declared)
    agree(*ready, version=2)
    return ready


def test_a_feature_that_nobody_lacks_is_added_up_under_the_row_count(
    nobody_lacks_it: tuple[Node, Node],
) -> None:
    bank, _ = nobody_lacks_it
    table = run(bank, "insight")["result"]["table"]
    shared = shoppers()[shoppers()["phone"].isin(SHARED)]
    assert sum(row["sum"] for row in table) == shared["spend"].sum()
    assert sum(row["count"] for row in table) == len(SHARED)


def test_somebody_who_lacks_it_all_the_same_ends_the_run(
    nobody_lacks_it: tuple[Node, Node],
) -> None:
    bank, shop = nobody_lacks_it
    path = shop.home.path / "shoppers.csv"
    table = pd.read_csv(path, dtype=str)
    table.loc[100, "spend"] = ""
    table.to_csv(path, index=False)
    theirs = Watch(shop)
    with pytest.raises(PeerAborted, match="E120"):
        run(bank, "insight")
    (row,) = theirs.ended()
    assert row["report"]["error"]["code"] == "E120"
    assert "spend" in row["report"]["error"]["message"]
