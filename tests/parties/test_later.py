"""What a command loads: help comes without what only other verbs need."""

import subprocess
import sys

import pytest

from parties import cli, cli_audit, cli_features, cli_recipes, terminal
from parties.later import Later

HEAVY = {"cryptography", "duckdb", "grpc", "numpy", "pandas", "pyarrow", "sqlalchemy"}


@pytest.mark.parametrize("words", [[], ["consent"], ["job", "run"], ["audit", "export"]])
def test_help_loads_no_database_and_no_tables(words: list[str]) -> None:
    program = "\n".join(
        (
            "import sys",
            "from parties import cli",
            f"cli.app({[*words, '--help']}, standalone_mode=False)",
            f"print(sorted({HEAVY} & sys.modules.keys()))",
        )
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "Usage:" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("module", [cli, cli_audit, cli_features, cli_recipes, terminal])
def test_what_is_loaded_later_is_there(module: object) -> None:
    found = [one for one in vars(module).values() if isinstance(one, Later)]
    assert found
    for one in found:
        assert one._load() is not None
