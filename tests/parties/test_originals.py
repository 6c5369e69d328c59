"""What is English where it is kept has words in every other language: nothing new without them."""

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from ready import AGREEMENT, run

from compliance import activities, amendment, disclosure, gate, notice
from compliance.agreement import Agreement, ConsentKind, Job, Release, Statistic
from compliance.amendment import changes
from compliance.disclosure import Sentence, sentences
from parties import audits, catalogue
from parties.console import originals, words
from parties.console.words import translations
from parties.node import Node

ROOT = Path(words.__file__).parents[2]
LANGUAGES = [language for language in words.LANGUAGES if language != "en"]
HOLE = re.compile(r"\{[^{}]*\}")

# Where verifying is done, and two receipts are compared.
ROOMS = (
    *("verify", "audit", "withdrawal", "lifecycle", "people", "succession", "receipt"),
    *("peers", "audits"),
)
# What looks the same and is none: a place in a receipt, and why an acknowledgement is refused.
OTHERS = {"{}", "{}.{}", "it is not one"}


def templates_in(source: str) -> Iterator[str]:
    """Every place and every problem that a room names, by how it says them."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="add"), args=[where, problem]):
                yield from texts(where)
                yield from texts(problem)
            case ast.Call(func=ast.Attribute(attr="append"), args=[ast.Tuple([where, problem])]):
                yield from texts(where)
                yield from texts(problem)
            case ast.Yield(ast.Tuple([where, problem])):
                yield from texts(where)
                yield from texts(problem)
            case ast.Yield(found) if found is not None:
                yield from texts(found)
            case ast.Assign([ast.Name(id="where" | "problem")], found):
                yield from texts(found)
            case ast.FunctionDef(name=name) if "problem" in name:
                for inner in ast.walk(node):
                    if isinstance(inner, ast.Return) and inner.value is not None:
                        yield from texts(inner.value)


def texts(node: ast.expr) -> Iterator[str]:
    match node:
        case ast.Constant(str(text)):
            yield text
        case ast.JoinedStr(parts):
            yield "".join(str(p.value) if isinstance(p, ast.Constant) else "{}" for p in parts)
        case ast.IfExp(_, one, other):
            yield from texts(one)
            yield from texts(other)


def found_in_rooms() -> set[str]:
    found = set[str]()
    for room in ROOMS:
        folder = "parties" if room in {"peers", "audits"} else "compliance"
        for text in templates_in((ROOT / folder / f"{room}.py").read_text("utf-8")):
            found |= {*text.split(": ")}
    return found


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_finding_of_a_verification_has_words(language: str) -> None:
    known = {HOLE.sub("{}", template) for template in translations(language, "findings")}
    found = found_in_rooms()
    assert len(found) > 90 and "leaf hash differs" in found
    missing = found - known - OTHERS
    assert not missing, f"words/{language}/findings.yaml lacks {sorted(missing)}"


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_numbered_error_has_a_title_and_a_text(language: str) -> None:
    pages = {path.stem for path in (ROOT / "docs" / "errors").glob("E*.md")}
    known = translations(language, "errors")
    assert known.keys() == pages, f"words/{language}/errors.yaml and docs/errors differ"
    for code, said in known.items():
        assert said.keys() == {"title", "text"} and all(said.values()), code


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("name", "templates"),
    [("disclosure", disclosure.TEMPLATES), ("changes", amendment.TEMPLATES)],
)
def test_every_template_has_words_for_the_same_values(
    language: str, name: str, templates: dict[str, str]
) -> None:
    known = translations(language, name)
    assert known.keys() == templates.keys()
    for template, text in templates.items():
        assert set(HOLE.findall(known[template])) == set(HOLE.findall(text)), template


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_put_in_again_was_taken_out(language: str) -> None:
    for template, said in translations(language, "findings").items():
        assert set(HOLE.findall(said)) <= set(HOLE.findall(template)), template


@pytest.mark.parametrize("language", LANGUAGES)
def test_members_choices_reasons_and_items_have_words(language: str) -> None:
    catalogue = words.catalogue(language)
    for model in (Agreement, notice.Notice):
        for name in members(model):
            assert f"term.{name}" in catalogue, name
    for kind in (ConsentKind, Release, Statistic):
        for choice in get_args(kind):
            assert f"value.{choice}" in catalogue, choice
    for reason in gate.Standing:
        assert reason is gate.Standing.LIVE or f"reason.{reason}" in catalogue, reason
    source = Path(activities.__file__).read_text("utf-8")
    items = set(re.findall(r'^        "([^"{}]+)":', source, re.MULTILINE)) - set(activities.TITLES)
    items |= {"missing", "people with a live written consent"}
    assert len(items) > 30 and items <= translations(language, "registers").keys()


def members(model: type) -> set[str]:
    """The names a document of this form may hold, at any depth."""
    found, left = set[str](), [model]
    seen = set[type]()
    while left:
        one = left.pop()
        if one in seen:
            continue
        seen.add(one)
        for name, field in one.model_fields.items():  # type: ignore[attr-defined]
            found.add(field.alias or name)
            types = [field.annotation]
            while types:
                kind = types.pop()
                types += get_args(kind)
                if hasattr(kind, "model_fields"):
                    left.append(kind)
    return found


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_feature_of_the_catalogue_has_a_definition(language: str) -> None:
    known = translations(language, "features")
    assert known.keys() == {one["name"] for one in catalogue.listed()}
    for name, said in known.items():
        assert said.keys() == {"definition", "missing"} and all(said.values()), name


# As they are shown


def test_a_signed_sentence_stands_beside_its_words(lasting: tuple[Node, Node]) -> None:
    bank, _ = lasting
    told, _ = audits.show_receipt(bank, run(bank, "insight")["run"])
    agreement = Agreement.from_yaml(AGREEMENT.format(version=1, partner_learns="size"))
    found = originals.learned("zh", agreement, told["job"], told["learned"])
    assert {party: [one.text for one in said] for party, said in found.items()} == told["learned"]
    assert all(one.translated for said in found.values() for one in said)
    assert "shop 集合的大小" in [one.shown for one in found["bank"]]
    assert any("spend（" in one.shown and "均值" in one.shown for one in found["bank"])
    for one in originals.learned("en", agreement, told["job"], told["learned"])["bank"]:
        assert not one.translated


def test_what_another_version_signed_stands_alone() -> None:
    agreement = Agreement.from_yaml(AGREEMENT.format(version=1, partner_learns="size"))
    job = {"job": "overlap", "agreement": "offers", "purpose": "credit-offer"}
    signed = {"bank": ["how many they share", "the size of shop's set"], "shop": ["nothing"]}
    found = originals.learned("zh", agreement, job, signed)
    assert [one.translated for one in found["bank"]] == [False, True]
    assert found["shop"][0].shown == "nothing"
    for broken in ({}, {"job": "score"}, {**job, "features": {"gone": ["mean"]}, "job": "insight"}):
        assert not originals.learned("zh", agreement, broken, signed)["bank"][0].translated


def test_names_are_put_in_as_they_stand() -> None:
    agreement = Agreement.from_yaml(AGREEMENT.format(version=1, partner_learns="size"))
    parties = agreement.parties.model_copy(update={"partner": "mean"})
    named = agreement.model_copy(update={"parties": parties})
    job = Job.from_yaml("job: overlap\nagreement: offers\npurpose: credit-offer")
    assert sentences(named, job)["bank"][1].written() == "the size of mean's set"
    assert originals.would_learn("zh", sentences(named, job))["bank"][1].shown == "mean 集合的大小"
    assert Sentence("size", {"party": "{x}"}).written() == "the size of {x}'s set"


@pytest.mark.parametrize(
    ("finding", "said"),
    [
        ("entry 7: leaf hash differs", "第 7 条：叶哈希不符"),
        (
            "consent 7 (entry 3, leaf 6): its record is not the one the log commits to",
            "同意 7（第 3 条第 6 叶）：其记录不是日志所承诺的",
        ),
        ("completion of run ab: E502 A signed envelope is malformed.", "运行 ab 的完成收据：E502 "),
        ("entry 9: li approved what li had proposed", "第 9 条：li 批准了自己的提议"),
        ("predicate.job: here 1, there {2}", "predicate.job：本方为 1，对方为 {2}"),
        ("entry 9: something new", "entry 9: something new"),
        ("entry 9: " + "x" * 5000, "entry 9: " + "x" * 5000),
        ("no place", "no place"),
    ],
)
def test_a_finding_is_said_in_words(finding: str, said: str) -> None:
    (found,) = originals.findings("zh", [finding])
    assert found.text == finding and found.shown.startswith(said)
    assert originals.findings("en", [finding])[0].shown == finding


@pytest.mark.parametrize(
    ("value", "member", "said"),
    [
        (None, "", "–"),
        ({}, "", "–"),
        ((), "", "–"),
        ([], "", "–"),
        (True, "", "✓"),
        (12345, "", "12,345"),
        ({"per": "month", "epsilon": "1"}, "", "周期 月, ε 1"),
        (["mean", "sum"], "statistics", "均值, 合计"),
        (["mean", "sum"], "features", "mean, sum"),
    ],
)
def test_a_value_is_shown_on_one_line(value: object, member: str, said: str) -> None:
    assert originals.shown_value("zh", value, member) == said


def test_changes_are_said_in_words() -> None:
    text = AGREEMENT.format(version=1, partner_learns="size")
    old = Agreement.from_yaml(text)
    new = Agreement.from_yaml(text.replace("size", "ids", 1).replace("none made", "PIA-7"))
    found = originals.changes("zh", changes(old, new))
    assert [one.text for one in found] == amendment.in_words(old, new)
    said = [one.shown for one in found]
    assert "影响评估 › 编号：原为 none made，现为 PIA-7" in said
    assert all(one.translated for one in found)
    assert replace(found[0], shown=found[0].text).translated is False
