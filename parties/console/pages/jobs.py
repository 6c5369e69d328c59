"""Jobs under way, with how far they are; and what became of the last ones."""

import re
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response
from markdown_it import MarkdownIt
from markupsafe import Markup

from parties import admin, runs
from parties.console.visit import Reading, Visit, Writing
from parties.errors import InternalError, NotServing, UnknownRun

router = APIRouter()

_SHOWN = 50
ERRORS = Path(__file__).parents[1] / "errors"  # a link in a checkout, the pages in a wheel
_LINK = re.compile(r"\[([^\]]+)\]\((?!https?:)([^)]+)\)")
_MARKDOWN = MarkdownIt("commonmark", {"html": False})


@router.get("/jobs")
def show(visit: Reading) -> Response:
    """What runs now, by what the serving node says of it; then the latest, with their errors."""
    node = visit.node
    serving, under_way = _under_way(visit)
    latest = [node.find_run(run["id"]) for run in node.runs()[:_SHOWN]]
    running = [run for run in latest if run["state"] == runs.RUNNING]
    return visit.page(
        "jobs.html",
        serving=serving,
        under_way=under_way,
        running=running,
        latest=latest,
        totals={run["id"]: _totals(run["report"]) for run in latest},
    )


@router.post("/jobs/{run}/cancel")
def cancel(visit: Writing, run: str) -> Response:
    """On both sides."""
    visit.require("engineer")
    admin.cancel(visit.node.home, run)
    return visit.go("/jobs", "jobs.cancelled")


@router.get("/errors/{code}")
def show_error(visit: Reading, code: str) -> Response:
    """The page of a numbered error."""
    known = {path.stem: path for path in ERRORS.glob("E*.md")}
    if code not in known:
        raise UnknownRun("There is no page on this error.", "See docs/errors.")
    text = known[code].read_text("utf-8")
    title, _, body = text.partition("\n")
    linked = _LINK.sub(_elsewhere, body)
    shown = Markup(_MARKDOWN.render(linked))  # noqa: S704 (our own page, and no HTML in it)
    return visit.page("error.html", code=code, heading=title.removeprefix("# "), body=shown)


def _elsewhere(link: re.Match[str]) -> str:
    """A link between files as one between pages; where there is none, the file's name."""
    text, target = link.groups()
    if page := re.fullmatch(r"(?:errors/)?(E\d{3})\.md", target):
        return f"[{text}](/errors/{page[1]})"
    return f"{text} (docs/{target.removeprefix('../')})"


def _under_way(visit: Visit) -> tuple[bool, dict[str, dict[str, Any]]]:
    """Whether the node serves, and its runs under way by id."""
    try:
        found = admin.under_way(visit.node.home)
    except (NotServing, InternalError):
        return False, {}
    for one in found:
        one["rate"] = one["done"] / one["seconds"] if one["seconds"] > 0 else 0.0
    return True, {one["run"]: one for one in found}


def _totals(report: dict[str, Any]) -> dict[str, float]:
    """What a run has cost in all."""
    stages = report.get("stages", {}).values()
    names = ("seconds", "cpu_seconds", "bytes_sent", "bytes_received")
    return {name: sum(stage[name] for stage in stages) for name in names}
