"""The notebook runs from its first cell to its last, with nothing left out of an earlier run."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "examples" / "insight.ipynb"


def test_the_notebook_finds_what_a_plain_join_finds() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs for cell in code)
    NotebookClient(notebook, timeout=120).execute()
    assert "wealthy" in code[-3].outputs[0]["data"]["text/plain"]
    assert "application/vnd.plotly.v1+json" in code[-1].outputs[0]["data"]
