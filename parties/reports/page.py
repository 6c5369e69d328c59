"""A report as one file of HTML: it asks for nothing else, and runs no script but its own two.

Plotly's script is most of it, and packed: the page unpacks it, and runs it by its digest.
"""

import gzip
import hashlib
import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from compliance import account, receipt, register
from compliance.agreement import Job
from compliance.canonical import canonical
from parties import results as files
from parties.audits import witness_keys
from parties.console import originals
from parties.console.originals import Original
from parties.console.words import shown_time
from parties.errors import HomeUnusable, JobError, ResultGone, ResultMissing
from parties.files import write_private
from parties.node import Node
from parties.reports import results
from parties.reports.figures import Chart, number
from parties.reports.told import Told
from parties.runs import COMPLETED

_PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_DRAW = (Path(__file__).parent / "report.js").read_text("utf-8")
IN_PRINT = 4  # charts at most; the others are in the file only
# Of two sheets of A4, in CSS pixels: what is left for charts, which are drawn smaller there, beside
# the head, the footer and the gap that a chart leaves where it does not fit below the others.
_ROOM, _SCALE, _BESIDE_CHART = 1150, 0.75, 70
_LINE, _WIDE = 15, 55  # of what was disclosed: pixels a line, letters in it


def make(node: Node, run: str, language: str = "en") -> str:
    """The report of a completed run, from its receipts and what this side has kept of its result.

    run: its id, or the first digits. Raises UnknownRun (E623), ResultMissing (E634), ResultGone
    (E635), and as `account.of_run` where a receipt or an agreement is not what it should be.
    """
    found = node.find_run(run)
    if found["state"] != COMPLETED:
        raise ResultMissing(
            f"Run {found['id'][:8]} is {found['state']}: it has no result to report.",
            f"`concordat job show {node.home.path} {found['id'][:8]}` says what became of it.",
        )
    with node.reading() as conn:
        told = account.of_run(
            conn, node.log, found["id"], node.signing_keys(), witness_keys(conn, node)
        )
        named = told["agreement"]
        agreement = register.find(conn, named["id"], named["version"]).agreement
        completion = receipt.find(conn, found["id"], "completion")
    sizes = {party: given["people"] for party, given in told["provided"].items()}
    summary = found["report"].get("result", {})
    job = Job.from_document(canonical(told["job"]))
    about = Told(agreement, job, told["started"], sizes, summary, language)
    result = _kept(node, found)
    gone = results.withdrawn(about, result) if result else 0
    if result and found["role"] == "bank" and not gone:
        _check(node, found, result, told["commitment"])
    charts = results.charts(about, result) if result else []
    return _rendered(
        about,
        charts,
        run=found,
        told=told,
        learned=originals.learned(language, agreement, told["job"], told["learned"]),
        home=str(node.home.path),
        signatures=sorted(completion.signatures) if completion else [],
        result=result is not None,
        gone=gone,
        facts=_facts(about),
    )


def keep(node: Node, run: str, language: str = "en") -> Path:
    """`write` to its place in the node's home, which a withdrawal empties. run: the whole id.

    Raises HomeUnusable (E631), too.
    """
    path = node.home.report_file(run)
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise HomeUnusable(
            f"{path.parent} cannot be made: {error.strerror}.",
            "Make room for a folder of this name, then `concordat report` makes the report.",
        ) from error
    with node.honouring:  # or a report of who is just being taken out would stay
        write(node, run, path, language)
    return path


def write(node: Node, run: str, path: Path, language: str = "en") -> None:
    """`make` into a file that only its owner reads. Raises JobError, too."""
    page = make(node, run, language)
    try:
        write_private(path, page.encode(), overwrite=True)
    except OSError as error:
        raise JobError(
            f"The report could not be written to {path}: {error.strerror}.",
            "Name another file with -o; the run and its result are not touched by this.",
        ) from error


def beside(output: Path) -> Path:
    """Where the report of a result in a file is written."""
    path = output.with_suffix(".html")
    return path if path != output else output.with_suffix(".report.html")


def _kept(node: Node, found: dict[str, Any]) -> bytes | None:
    """This side's result, if it has one. Raises ResultGone."""
    if "result_file" not in found["report"]:
        return None
    folder = node.home.path / "runs" / found["id"]
    path = files.result_file(folder) if folder.is_dir() else None
    if path is None:
        raise _gone(found, "is no longer in the node's home")
    return node.home.read(path)


def _check(node: Node, found: dict[str, Any], result: bytes, commitment: str) -> None:
    """Raises ResultGone unless both have signed for this result."""
    try:
        text = node.home.read(node.home.path / "runs" / found["id"] / files.SALT)
        salted = bytes.fromhex(text.decode("ascii")) + result
    except ValueError:
        salted = result
    if hashlib.sha256(salted).hexdigest() != commitment:
        raise _gone(found, "is not the one that both have signed for: a file was changed")


def _gone(found: dict[str, Any], problem: str) -> ResultGone:
    return ResultGone(
        f"The result of run {found['id'][:8]} {problem}.",
        "Run the job again; the receipts of this run are in the log all the same.",
    )


def _facts(told: Told) -> list[tuple[str, str]]:
    """The result's figures beside its charts."""
    found = []
    for name, value in told.summary.items():
        said = next((n for n in (f"term.{name}", f"report.{name}") if told.knows(n)), None)
        if type(value) is int and said:
            found.append((told.say(said), number(value)))
    return found


def _rendered(about: Told, charts: list[Chart], **values: Any) -> str:
    packed, digest = _plotly() if charts else ("", "")
    charts = [replace(one, figure=_sized(one)) for one in charts]
    figures = {f"chart-{at}": one.figure for at, one in enumerate(charts)}
    return _PAGES.get_template("report.html").render(
        say=about.say,
        language=about.language,
        about=about,
        charts=charts,
        figures=Markup(_in_script(figures)),  # noqa: S704 (escaped by it)
        packed=packed,
        draw=Markup(_DRAW),  # noqa: S704 (our own)
        hashes=f"'sha256-{digest}' 'sha256-{_sha256(_DRAW)}'" if charts else "'none'",
        time=shown_time,
        number=number,
        in_print=_in_print(charts, values["learned"]),
        scale=_SCALE,
        **values,
    )


def _in_print(charts: Sequence[Chart], learned: Mapping[str, Sequence[Original]]) -> set[int]:
    """Which charts are printed, so that all fits on two pages."""
    lines = [sum(1 + len(one.shown) // _WIDE for one in found) for found in learned.values()]
    room = _ROOM - _LINE * max(lines, default=0)
    chosen = set[int]()
    for at, chart in enumerate(charts):
        needed = _SCALE * chart.height + _BESIDE_CHART
        if len(chosen) < IN_PRINT and needed <= room:
            chosen.add(at)
            room -= int(needed)
    return chosen


@cache
def _plotly() -> tuple[str, str]:
    """Plotly's script, packed as the page holds it; and its digest, by which it may run."""
    from plotly.offline import get_plotlyjs  # noqa: PLC0415 (a third of a second, for reports only)

    script = get_plotlyjs()
    packed = gzip.compress(script.encode(), mtime=0)
    return b64encode(packed).decode(), _sha256(script)


def _sized(chart: Chart) -> dict[str, Any]:
    figure = chart.figure
    return figure | {"layout": figure["layout"] | {"height": chart.height}}


def _in_script(data: Any) -> str:
    """JSON that ends no script element, whatever its texts are (HTML, section 4.12.1.3)."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False)
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


def _sha256(script: str) -> str:
    return b64encode(hashlib.sha256(script.encode()).digest()).decode()
