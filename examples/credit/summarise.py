"""What both nodes remember of their runs, as JSON: summarise.py BANK_HOME PARTNER_HOME"""

import json
import subprocess
import sys
from pathlib import Path

CONCORDAT = Path(sys.executable).with_name("concordat")


def concordat(*words: str) -> dict | list:
    """The JSON a command prints, whatever its exit status."""
    command = [CONCORDAT, *words, "--json"]
    return json.loads(subprocess.run(command, capture_output=True, check=False).stdout)


def side(home: str) -> dict:
    """One institution: its consents, its runs by job, the verdict on its log."""
    runs = {}
    for run in reversed(concordat("job", "list", home)):
        shown = concordat("job", "show", home, run["id"])
        report = shown["report"]
        runs[run["job"]] = {
            "run": run["id"],
            "state": run["state"],
            **{name: report.get(name) for name in ("rows", "gate", "values", "stages")},
        }
    return {
        "consents": concordat("consent", "list", home),
        "runs": runs,
        "verification": concordat("audit", "verify", home),
    }


if __name__ == "__main__":
    bank, partner = sys.argv[1:]
    print(json.dumps({"bank": side(bank), "partner": side(partner)}, indent=2))
