"""Runs: for what, with whom, who learned what, and whether both sides' receipts agree."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, File, UploadFile
from fastapi.responses import Response
from sqlalchemy import select

from compliance import receipt
from compliance.log import log_entries
from parties import agreements, audits
from parties.console import originals
from parties.console.visit import Reading, Visit, Writing
from parties.errors import NoReceipt, UnknownRun
from parties.node import Node
from parties.reading import read
from parties.reports import page as reports

router = APIRouter()

_SHOWN = 500
_FILES: dict[str, receipt.Kind] = {"intent.json": "intent", "receipt.json": "completion"}


@router.get("/runs")
def show_all(visit: Reading, days: int = 0) -> Response:
    """Newest first, of the last so many days if that is said."""
    runs = visit.node.runs()
    if 0 < days < 10_000:
        since = (visit.node.now() - timedelta(days=days)).isoformat(timespec="seconds")
        runs = [run for run in runs if run["started_at"] >= since]
    return visit.page("runs.html", runs=runs[:_SHOWN], days=days)


@router.get("/runs/{run}")
def show(visit: Reading, run: str) -> Response:
    return _page(visit, run)


@router.post("/runs/{run}/compare")
def compare(visit: Writing, run: str, file: Annotated[UploadFile, File()]) -> Response:
    """Whether the receipt that the partner shows says what ours does."""
    found, differences = audits.compare_with(visit.node, file.file.read())
    if found != run:
        raise NoReceipt(
            "This is the receipt of another run.", "Choose the partner's receipt of this run."
        )
    return _page(visit, run, differences)


@router.get("/runs/{run}/{name}")
def download(visit: Reading, run: str, name: str) -> Response:
    """A receipt as both have signed it, or the report."""
    if name == "report.html":
        return _report(visit, run)
    if name not in _FILES:
        raise UnknownRun("A run has no such file.", "Choose one on its page.")
    with visit.node.reading() as conn:
        found = receipt.find(conn, run, _FILES[name])
    if found is None:
        raise NoReceipt("This run has no such receipt.", "See its page for what became of it.")
    return visit.file(found.to_json(), f"{run[:8]}-{name}", "application/json")


def _report(visit: Visit, run: str) -> Response:
    """A completed run's report, made anew: in this language, without who has withdrawn since."""
    node, found = visit.node, visit.node.find_run(run)["id"]
    read(node, "report", run=found)
    page = reports.make(node, found, visit.language)
    return visit.file(page.encode(), f"report-{found[:8]}.html", "text/html; charset=utf-8")


def _page(visit: Visit, run: str, differences: list[str] | None = None) -> Response:
    node = visit.node
    found = node.find_run(run)
    told, learned = None, {}
    if _has_receipt(node, found["id"]):
        told, _ = audits.show_receipt(node, found["id"])
        named = told["agreement"]
        agreement = agreements.find(node, named["id"], named["version"]).agreement
        learned = originals.learned(visit.language, agreement, told["job"], told["learned"])
    return visit.page(
        "run.html",
        run=found,
        report=found["report"],
        told=told,
        learned=learned,
        timeline=_timeline(node, found["id"]),
        differences=None
        if differences is None
        else originals.findings(visit.language, differences),
    )


def _has_receipt(node: Node, run: str) -> bool:
    with node.reading() as conn:
        return receipt.find(conn, run, "intent") is not None


def _timeline(node: Node, run: str) -> list[tuple[str, str, int]]:
    """What the log says of a run: when, what, and in which entry."""
    entry = log_entries.c
    query = select(entry.time, entry.type, entry.index).where(entry.run == run)
    with node.reading() as conn:
        rows = conn.execute(query.order_by(entry.index)).all()
    return [(time, type_, index) for time, type_, index in rows if type_ != "audit.read"]
