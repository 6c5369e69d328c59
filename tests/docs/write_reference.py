"""Write what docs/reference holds of the program's own making: python tests/docs/write_reference.py

The pages on the commands and the features; receipts, result and log entry of one run of the
reference job; and in the pages beside them what their commands print.
"""

import tempfile
from pathlib import Path

import cli_reference
import console
import feature_reference
import made_up
from made_up import REFERENCE

from compliance import receipt


def write() -> None:
    (REFERENCE / "cli.md").write_text(cli_reference.page(), "utf-8")
    (REFERENCE / "features.md").write_text(feature_reference.page(), "utf-8")
    with tempfile.TemporaryDirectory() as folder, made_up.two_nodes(Path(folder)) as (bank, _):
        report = made_up.run(bank, "job.yaml")
        files = bank.home.run_folder(report["run"])
        (REFERENCE / "insight.csv").write_bytes((files / "insight.csv").read_bytes())
        (REFERENCE / "insight.salt").write_bytes((files / "salt").read_bytes())
        with bank.reading() as conn:
            for kind in ("intent", "completion"):
                envelope = receipt.find(conn, report["run"], kind)
                (REFERENCE / f"receipt-{kind}.json").write_bytes(envelope.to_json())
            (entry,) = [one for one in bank.log.entries(conn) if one.type == "run.completion"]
        (REFERENCE / "log-entry.json").write_bytes(entry.leaf)
    for name in ("receipt.md", "log-entry.md"):
        page = REFERENCE / name
        page.write_text(console.played(page.read_text("utf-8"), REFERENCE), "utf-8")


if __name__ == "__main__":
    write()
