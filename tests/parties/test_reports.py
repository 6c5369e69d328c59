"""Reports of runs between two real nodes, and of results made up for what those do not show."""

import gzip
import hashlib
import json
import re
from base64 import b64decode, b64encode
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from plotly.graph_objects import Figure
from ready import AGREEMENT as READY
from ready import SHARED, agree, paused, phones, run
from typer.testing import CliRunner

from compliance.agreement import Agreement, Job
from parties.bins import COMPARED, EVALUATED, to_csv
from parties.cli import app
from parties.console import words
from parties.errors import ResultGone, ResultMissing
from parties.node import Node
from parties.reports import page, results
from parties.reports.figures import number
from parties.reports.told import Told

Nodes = tuple[Node, Node]
HOSTILE = "</script><script>alert(1)</script>"


class Read(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.links: list[str] = []
        self.cells: list[str] = []
        self.words: list[str] = []
        self.policy = ""
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open = tag
        given = dict(attrs)
        self.links += [value or "" for name, value in attrs if name in {"src", "href", "action"}]
        if tag == "script":
            self.scripts.append((given, ""))
        if given.get("http-equiv"):
            self.policy = given["content"] or ""

    def handle_data(self, data: str) -> None:
        if self._open == "script":
            given, text = self.scripts[-1]
            self.scripts[-1] = (given, text + data)
        elif self._open in {"td", "th"}:
            self.cells.append(data.strip())
        else:
            self.words.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def figures(self) -> dict[str, Any]:
        (text,) = [text for given, text in self.scripts if given.get("id") == "figures"]
        return dict(json.loads(text))


def checked(text: str) -> Read:
    """A page that asks for nothing, and runs plotly and our own script and no other."""
    read = Read(text)
    assert not read.links
    assert not re.search(r"url\(|@import", text.partition("<script")[0])
    assert "default-src 'none'" in read.policy
    scripts = [body for given, body in read.scripts if given.get("type") is None]
    packed = [body for given, body in read.scripts if given.get("id") == "plotly"]
    assert len(scripts) == len(packed) == ("figures" in text)
    scripts += [gzip.decompress(b64decode(body)).decode() for body in packed]
    for body in scripts:
        assert b64encode(hashlib.sha256(body.encode()).digest()).decode() in read.policy
    assert len(b"".join(map(b64decode, re.findall(r"sha256-([^']+)", read.policy)))) == 64
    for figure in read.figures().values():
        Figure(figure)  # refuses what plotly does not know
    assert len(text) < 2_100_000
    return read


def report(node: Node, done: dict[str, Any], language: str = "en") -> Read:
    return checked(page.make(node, done["run"], language))


# Between two nodes


def test_overlap_and_intersect_show_counts(lasting: Nodes) -> None:
    bank, _ = lasting
    for kind in ("overlap", "intersect"):
        read = report(bank, run(bank, kind))
        assert read.cells[:2] == ["Who is whose customer", "Customers"]
        assert read.cells[2:] == ["only bank", "60", "shared", "55", "only shop", "60"]
        said = " ".join(read.words)
        assert not [phone for phone in SHARED if phone in said or phone[3:] in said]


@pytest.mark.parametrize("language", list(words.LANGUAGES))
def test_insight_shows_every_segment_and_who_signed(lasting: Nodes, language: str) -> None:
    bank, _ = lasting
    done = run(bank, "insight")
    read = report(bank, done, language)
    for row in done["result"]["table"]:
        assert {row["age"], number(row["count"]), number(row["mean"])} <= {*read.cells}
    (bars,) = read.figures().values()
    assert bars["data"][0]["y"] == [row["mean"] for row in done["result"]["table"]]
    said = " ".join(read.words)
    assert done["run"] in said and done["transcript"] in said
    assert str(bank.home.path) in said
    assert words.say(language, "report.proof") in said
    assert "the size of shop's set" in said  # as the agreement says it


def test_the_partner_sees_what_was_disclosed_and_that_the_bank_has_the_result(
    lasting: Nodes,
) -> None:
    bank, shop = lasting
    text = page.make(shop, run(bank, "overlap")["run"])
    assert words.say("en", "report.theirs", party="bank") in text
    assert "<script" not in text


def test_lookup_shows_how_complete_it_is_and_nobody(lasting: Nodes) -> None:
    bank, _ = lasting
    done, text = looked_up(bank)
    read = checked(text)
    assert read.cells[:3] == ["Feature", "With a value", "% of the people found"]
    assert read.cells[3:] == ["spend", str(done["result"]["found"]), "100.0 %"]
    assert not [phone for phone in phones(0, 180) if phone in text or phone[3:] in text]


def looked_up(bank: Node) -> tuple[dict[str, Any], str]:
    from parties import session

    people = bank.home.path / "asked.csv"
    people.write_text("phone\n" + "\n".join(phones(60, 90)) + "\n")
    job = f"job: lookup\nagreement: offers\npurpose: credit-offer\npeople: {people}\n"
    done = session.run_job(bank, job, lambda *_: None, session.Control())
    return done, page.make(bank, done["run"])


def test_people_taken_out_of_a_result_are_said_to_be_gone(lasting: Nodes) -> None:
    bank, _ = lasting
    done, _ = looked_up(bank)
    path = Path(done["result_file"])
    whole = path.read_bytes()
    path.write_bytes(b"".join(whole.splitlines(True)[:-2]))
    read = report(bank, done)
    assert words.say("en", "report.withdrawn", n=2) in " ".join(read.words)
    path.write_bytes(whole.splitlines(True)[0])  # everybody
    text = page.make(bank, done["run"])
    assert words.say("en", "report.withdrawn", n=done["result"]["found"]) in text
    path.write_bytes(whole.replace(b"+86", b"+87"))
    with pytest.raises(ResultGone, match="signed for"):
        page.make(bank, done["run"])
    path.unlink()
    with pytest.raises(ResultGone, match="no longer"):
        page.make(bank, done["run"])


def test_a_result_that_was_changed_is_not_shown(lasting: Nodes) -> None:
    bank, _ = lasting
    done = run(bank, "insight")
    path = Path(done["result_file"])
    path.write_bytes(path.read_bytes().replace(b"40-", b"41-"))
    with pytest.raises(ResultGone, match="signed for"):
        page.make(bank, done["run"])


def test_a_run_without_a_result_has_no_report(lasting: Nodes) -> None:
    bank, _ = lasting
    with paused(bank, "overlap", "gate") as (_, pause):
        (under_way,) = [one["id"] for one in bank.runs() if one["state"] == "running"]
        with pytest.raises(ResultMissing, match="running"):
            page.make(bank, under_way)
        pause.go.set()


def test_names_are_text_in_the_page_and_in_its_figures(
    ready: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ready as module  # the fixture has the same name

    hostile = READY.replace('"-39"', json.dumps(HOSTILE)).replace(
        "unit: CNY", 'unit: "<img src=x onerror=alert(1)>&lt;b>"'
    )
    assert hostile != READY
    monkeypatch.setattr(module, "AGREEMENT", hostile)
    agree(*ready, version=2)
    bank, _ = ready
    text = page.make(bank, run(bank, "insight")["run"])
    read = checked(text)
    assert HOSTILE in "".join(read.cells) and HOSTILE not in text and "<img" not in text
    (figure,) = read.figures().values()
    assert figure["data"][0]["x"][0] == HOSTILE.replace("<", "&lt;").replace(">", "&gt;")
    assert "<img" not in json.dumps(figure)


def test_the_command_writes_a_report(lasting: Nodes, tmp_path: Path) -> None:
    bank, _ = lasting
    done = run(bank, "overlap")
    path = tmp_path / "overlap.html"
    said = CliRunner().invoke(
        app, ["report", str(bank.home.path), done["run"][:8], "-o", str(path), "--lang", "zh"]
    )
    assert said.exit_code == 0 and str(path) in said.output
    assert words.say("zh", "report.sets") in " ".join(checked(path.read_text("utf-8")).words)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_job_leaves_its_report_beside_its_output(lasting: Nodes, tmp_path: Path) -> None:
    bank, _ = lasting
    job = tmp_path / "job.yaml"
    job.write_text("job: overlap\nagreement: offers\npurpose: credit-offer\n")
    command = ["job", "run", str(bank.home.path), str(job)]
    said = CliRunner().invoke(app, [*command, "--output", str(tmp_path / "found.json")])
    assert said.exit_code == 0, said.output
    assert str(tmp_path / "found.html") in said.output.splitlines()[-1]
    checked((tmp_path / "found.html").read_text("utf-8"))


def test_every_job_leaves_its_report_in_the_home(lasting: Nodes, tmp_path: Path) -> None:
    bank, _ = lasting
    job = tmp_path / "job.yaml"
    job.write_text("job: overlap\nagreement: offers\npurpose: credit-offer\n")
    command = ["job", "run", str(bank.home.path), str(job), "--lang", "zh", "--json"]
    said = CliRunner().invoke(app, command)
    assert said.exit_code == 0, said.output
    done = json.loads(said.stdout.splitlines()[-1])
    path = bank.home.report_file(done["run"])
    assert done["report_file"] == str(path) and str(path) in said.stderr
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
    assert words.say("zh", "report.sets") in " ".join(checked(path.read_text("utf-8")).words)
    path.unlink()
    said = CliRunner().invoke(app, ["report", str(bank.home.path), done["run"][:8]])
    assert said.exit_code == 0 and str(path) in said.output
    assert words.say("en", "report.sets") in path.read_text("utf-8")


def test_a_run_stands_whatever_comes_of_its_report(lasting: Nodes, tmp_path: Path) -> None:
    bank, _ = lasting
    job = tmp_path / "job.yaml"
    job.write_text("job: overlap\nagreement: offers\npurpose: credit-offer\n")
    folder = bank.home.report_file("x").parent
    kept = folder.rename(tmp_path / "kept")
    folder.write_text("no folder")
    try:
        said = CliRunner().invoke(app, ["job", "run", str(bank.home.path), str(job)])
    finally:
        folder.unlink()
        kept.rename(folder)
    assert said.exit_code == 0, said.output
    assert "E631" in said.output and "The run is complete all the same" in said.output


def test_a_report_beside_a_page_has_another_name() -> None:
    assert page.beside(Path("a/b.html")) == Path("a/b.report.html")


# Made-up results


def told(kind: str, summary: dict[str, Any] | None = None, **job: Any) -> Told:
    text = READY.format(version=1, partner_learns="size")
    text = text.replace(
        "      spend:",
        "      next: {unit: days, lower: -730, upper: 730, decimals: 1, bins: [0, 7, 14]}\n"
        "      spend:",
    )
    agreement = Agreement.from_yaml(text)
    given = {"job": kind, "agreement": "offers", "purpose": "credit-offer", **job}
    return Told(
        agreement,
        Job.from_yaml(json.dumps(given)),
        "2026-11-24T10:00:00Z",
        {"bank": 100, "shop": 90},
        summary or {},
        "en",
    )


def test_the_right_moment_is_a_calendar_from_the_day_of_the_run() -> None:
    result = (
        b"age,feature,count,histogram,suppressed\n-39,next,60,10;21;14;15,false\n40-,next,,,true\n"
    )
    calendar, spread = results.charts(told("insight", features={"next": ["histogram"]}), result)
    Figure(calendar.figure)
    assert [row[1:] for row in calendar.rows] == [
        ["…", "2026-11-24", "10"],
        ["2026-11-25", "2026-12-01", "21"],
        ["2026-12-02", "2026-12-08", "14"],
        ["2026-12-09", "…", "15"],
    ]
    (field,) = calendar.figure["data"]
    by_day = dict(
        zip(
            [f"{week} {day}" for week in field["y"] for day in field["x"]],
            [value for week in field["z"] for value in week],
            strict=True,
        )
    )
    # 24 November 2026 is a Tuesday.
    assert by_day["2026-11-23 Tue"] is None
    assert by_day["2026-11-23 Wed"] == 3 and by_day["2026-11-30 Tue"] == 3
    assert by_day["2026-11-30 Wed"] == 2 and by_day["2026-12-07 Tue"] == 2
    assert by_day["2026-12-07 Wed"] is None
    assert "25 more" in calendar.note
    assert spread.rows[1][1:] == ["suppressed"] * 4


def test_two_axes_make_a_heat_map_with_suppressed_fields() -> None:
    result = (
        b"age,city,feature,count,mean,suppressed\n-39,north,spend,60,12.5,false\n"
        b"-39,south,spend,,,true\n40-,north,spend,70,1234.56,false\n40-,south,spend,80,2,false\n"
    )
    heat, bars = results.charts(told("insight", features={"spend": ["mean"]}), result)
    Figure(heat.figure)
    assert heat.figure["data"][0]["z"] == [[12.5, None], [1234.56, 2.0]]
    assert heat.rows == [["-39", "12.5", "suppressed"], ["40-", "1,235", "2"]]
    (note,) = heat.figure["layout"]["annotations"]
    assert note["text"] == "suppressed"
    assert (note["x"], note["y"]) == (1, 0), "by number: plotly takes the name -39 for one"
    assert bars.figure["data"][0]["y"] == [12.5, None, 1234.56, 2.0]


def bin_row(feature: str, at: int, **figures: Any) -> dict[str, Any]:
    ends = [None, 10, 20, None]
    return {"feature": feature, "bin": str(at + 1), "lower": ends[at], "upper": ends[at + 1]} | (
        figures
    )


def test_evaluate_ranks_by_information_value_and_hides_small_bins() -> None:
    rows = [
        bin_row("next", 0, good=50, bad=10, woe=-0.5, iv=0.1, total_iv=0.15),
        bin_row("next", 1, good=30, bad=20, woe=0.4, iv=0.05, total_iv=0.15),
        bin_row("spend", 0, good=50, bad=20, woe=0.9, iv=0.3, total_iv=0.3),
        bin_row("spend", 1, good=None, bad=None, woe=None, iv=None, total_iv=0.3),
    ]
    ranking, spend, following = results.charts(told("evaluate"), to_csv(EVALUATED, rows))
    assert ranking.rows == [["spend", "0.3"], ["next", "0.15"]]
    assert spend.rows == [
        ["≤ 10", "50", "20", "0.9", "0.3"],
        ["10 < … ≤ 20", *["suppressed"] * 4],
    ]
    (woe,) = following.figure["data"]
    assert woe["y"] == [-0.5, 0.4] and len(set(woe["marker"]["color"])) == 2
    for chart in (ranking, spend, following):
        Figure(chart.figure)


def test_stability_shows_the_bands_of_psi() -> None:
    rows = [
        bin_row(name, at, expected=50, actual=40 + at, psi=0.1, total_psi=psi, shift=band)
        for name, psi, band in (("next", 0.05, "stable"), ("spend", 0.31, "large"))
        for at in (0, 1)
    ]
    psi, *spreads = results.charts(told("stability"), to_csv(COMPARED, rows))
    assert psi.rows == [["spend", "0.31", "large"], ["next", "0.05", "stable"]]
    assert [one["x0"] for one in psi.figure["layout"]["shapes"]] == [0.1, 0.25]
    assert len(spreads) == 2 and spreads[0].figure["data"][0]["y"] == [50.0, 50.0]
    alone = [bin_row("spend", at, actual=at + 3) for at in (0, 1)]
    (only,) = results.charts(told("stability"), to_csv(COMPARED, alone))
    assert only.note == words.say("en", "report.no_earlier")
    for chart in (psi, *spreads, only):
        Figure(chart.figure)


def test_scores_are_drawn_of_enough_people_only() -> None:
    lines = [f"+86139{i:08},{500 + i}.5\n" for i in range(40)]
    result = ("phone,score\n" + "".join(lines)).encode()
    (chart,) = results.charts(told("score"), result)
    Figure(chart.figure)
    assert sum(int(row[1]) for row in chart.rows) == 40
    assert "139000" not in json.dumps(chart.figure) + json.dumps(chart.rows)
    few = ("phone,score\n" + "".join(lines[: results.FEWEST - 1])).encode()
    assert not results.charts(told("score"), few)
    fell = "phone,before,now,fall\n" + "".join(
        f"+86139{i:08},600,500,{100 + i}\n" for i in range(12)
    )
    (chart,) = results.charts(told("score"), fell.encode())
    assert chart.title == words.say("en", "report.falls")


def test_the_recipe_for_the_right_moment_is_one() -> None:
    text = (Path(__file__).parents[2] / "docs" / "reports.md").read_text("utf-8")
    feature, job = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    asked = Job.from_yaml(job)
    agreement = READY.format(version=1, partner_learns="size")
    agreed = Agreement.from_yaml(agreement.replace("      spend:", f"      {feature}      spend:"))
    (name,) = asked.features
    about = Told(agreed, asked, "2026-11-24T10:00:00Z", {}, {}, "en")
    rows = f"age,feature,count,histogram,suppressed\n-39,{name},60,1;2;3;4;5;6,false\n"
    titles = [chart.title for chart in results.charts(about, rows.encode())]
    assert words.say("en", "report.calendar", feature=name) in titles
