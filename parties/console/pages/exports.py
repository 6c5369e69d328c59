"""Exports: evidence for outsiders, and the registers that the law wants kept."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

from fastapi import APIRouter
from fastapi.responses import Response

from compliance.choices import Form, Kind
from parties import evidence
from parties.console import pdf
from parties.console.files import zipped
from parties.console.visit import Reading, Text, Writing, day
from parties.errors import FormUnfit

router = APIRouter()

KINDS: tuple[Kind, ...] = get_args(Kind)
FORMS: tuple[str, ...] = (*get_args(Form), "pdf")
_MEDIA = {"csv": "text/csv; charset=utf-8", "json": "application/json", "pdf": "application/pdf"}


@router.get("/exports")
def show(visit: Reading) -> Response:
    visit.require("officer", "auditor")
    return visit.page("exports.html", kinds=KINDS, forms=FORMS)


@router.post("/exports/evidence")
def export(visit: Writing, run: Text = "", since: Text = "", until: Text = "") -> Response:
    """The whole log, one run, or some days, as evidence that verifies offline."""
    visit.require("officer", "auditor")
    node, first, last = visit.node, day(since), day(until)
    scope = evidence.scope(node, run.strip() or None, first, last)
    name = f"evidence-{node.config.name}" + (f"-{scope.run[:8]}" if scope.run else "")
    with TemporaryDirectory(dir=node.home.path) as folder:
        made = Path(folder) / name
        evidence.export(node, made, scope)
        return visit.file(zipped(made), f"{name}.zip", "application/zip")


@router.post("/exports/register")
def register(visit: Writing, kind: Text, form: Text) -> Response:
    """One register, as a file of one kind."""
    visit.require("officer", "auditor")
    for known in KINDS:
        if known == kind and form in FORMS:
            node = visit.node
            with TemporaryDirectory(dir=node.home.path) as folder:
                path = Path(folder) / "register"
                evidence.register(node, known, "csv" if form == "csv" else "json", path)
                data = path.read_bytes()
            if form == "pdf":
                data = pdf.register(data, visit.language)
            return visit.file(data, f"{known}-{node.config.name}.{form}", _MEDIA[form])
    raise FormUnfit("There is no such register.", "Choose one on the page of exports.")
