"""The house's own rules: who may import whom, what an error needs, what is written about it."""

import ast
import importlib
import pkgutil
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from protos.errors import ConcordatError

ROOT = Path(__file__).parents[1]
CHINESE = "parties/console/words/zh/errors.yaml"
ROOMS = ("protos", "federated", "compliance", "parties")
KERNELS = "federated._native"

# What each room may import of ours, itself aside.
MAY_IMPORT = {
    "protos": (),
    "federated": ("protos",),
    "compliance": ("protos", KERNELS),
    "parties": ("protos", "federated", "compliance"),
}

# The first digits of the codes that a room's errors may have (see protos/errors.py): those on the
# tables of a user lie in the room that reads them.
HUNDREDS = {"protos": "", "federated": "12", "compliance": "3457", "parties": "16"}


def modules(room: str) -> list[Path]:
    return sorted(
        path for path in (ROOT / room).rglob("*.py") if not path.match("concordat/v1/*_pb2*.py")
    )


# Floors


def imported(tree: ast.AST) -> Iterator[str]:
    """Everything a module imports, as dotted names; a relative import starts with a dot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (f"{module}.{name.name}" for name in node.names)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_down(room: str) -> None:
    allowed = (room, *MAY_IMPORT[room])
    for path in modules(room):
        for name in imported(ast.parse(path.read_text("utf-8"))):
            assert not name.startswith("."), f"{path}: {name} should be absolute"
            if name.split(".")[0] in {*ROOMS, "native", "tests"}:
                fits = any(name == place or name.startswith(f"{place}.") for place in allowed)
                assert fits, f"{path}: {room} may not import {name}"


def test_the_protocols_know_no_file_socket_or_database() -> None:
    outside = {"grpc", "io", "os", "pathlib", "shutil", "socket", "sqlalchemy", "sqlite3", "yaml"}
    for path in modules("federated"):
        tree = ast.parse(path.read_text("utf-8"))
        found = {name.split(".")[0] for name in imported(tree)} & outside
        calls = {
            node.func.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert not found | (calls & {"open"}), path


# Errors


def errors() -> list[type[ConcordatError]]:
    """Every class of error the rooms define."""
    for room in ROOMS:
        package = importlib.import_module(room)
        for module in pkgutil.walk_packages(package.__path__, f"{room}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    found, ahead = [], [ConcordatError]
    while ahead:
        for kind in ahead.pop().__subclasses__():
            found.append(kind)
            ahead.append(kind)
    return [kind for kind in found if kind.__module__.split(".")[0] in ROOMS]


def codes() -> dict[str, type[ConcordatError]]:
    """The errors by code; those that carry another node's code have none of their own."""
    return {kind.__dict__["code"]: kind for kind in errors() if "code" in kind.__dict__}


def test_codes_are_unique_and_of_their_room() -> None:
    named = [kind for kind in errors() if "code" in kind.__dict__]
    assert len(codes()) == len(named) > 50
    for kind in named:
        assert re.fullmatch(r"E[1-7]\d\d", kind.code), kind
        assert kind.code[1] in HUNDREDS[kind.__module__.split(".")[0]], kind
    # Only what a peer or the admin service reports goes by another's code.
    without = {kind.__name__ for kind in errors()} - {kind.__name__ for kind in named}
    assert without <= {"NodeFailure"}


def test_every_error_has_a_page_and_every_page_an_error() -> None:
    pages = {path.stem: path for path in (ROOT / "docs/errors").glob("E*.md")}
    words = (ROOT / CHINESE).read_text("utf-8")
    assert pages.keys() == codes().keys()
    for code, path in pages.items():
        title, _, body = path.read_text("utf-8").partition("\n")
        assert re.fullmatch(rf"# {code}: \S.*", title), path
        assert f"\n{code}: " in words, f"{path} has no Chinese title in {CHINESE}"
        for heading in (r"What happened", r"On which side|Where", r"What to do"):
            assert re.search(rf"^\*\*({heading})\.\*\* \S", body, re.MULTILINE), (path, heading)


@pytest.mark.parametrize(
    ("folder", "pattern"), [("errors", "E*.md"), ("adr", "[0-9]*.md")], ids=["errors", "decisions"]
)
def test_the_indexes_are_complete(folder: str, pattern: str) -> None:
    """Every page has its row in the folder's README, under its own title, in order."""
    pages = sorted((ROOT / "docs" / folder).glob(pattern))
    rows = []
    for path in pages:
        number, title = re.fullmatch(
            r"# (\w+): (.+)", path.read_text("utf-8").splitlines()[0]
        ).groups()
        rows.append(f"| [{number}]({path.name}) | {title} |")
    index = (ROOT / "docs" / folder / "README.md").read_text("utf-8").splitlines()
    assert [line for line in index if line.startswith("| [")] == rows


def test_decisions_have_one_form() -> None:
    paths = sorted((ROOT / "docs/adr").glob("[0-9]*.md"))
    numbers = [path.name[:4] for path in paths]
    assert len(numbers) == len(set(numbers))
    for path in paths:
        text = path.read_text("utf-8")
        assert text.startswith(f"# {path.name[:4]}: "), path
        for heading in ("**Context.**", "**Decision.**", "**Consequences.**"):
            assert heading in text, f"{path} lacks {heading}"


# What is written


def tracked() -> list[Path]:
    """The files of the project: what git knows, or, without git, everything but what is built."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode == 0 and listed.stdout:
        paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:
        built = {".git", ".venv", "target", "__pycache__", ".hypothesis", "out"}
        paths = [path for path in ROOT.rglob("*") if not built & set(path.parts)]
    return [path for path in paths if path.is_file()]


def texts() -> Iterator[tuple[Path, str]]:
    for path in tracked():
        try:
            yield path, path.read_text("utf-8")
        except UnicodeDecodeError:
            assert path.suffix not in {".py", ".rs", ".md", ".yaml", ".toml", ".proto"}, path


def test_no_path_of_the_machine_it_was_written_on() -> None:
    somewhere = re.compile(r"(?<![\w.])/(home|root|work|Users)/\w")
    for path, text in texts():
        assert not somewhere.search(text), path


def test_nothing_is_left_undone() -> None:
    marks = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b")
    for path, text in texts():
        if path.suffix in {".py", ".pyi", ".rs", ".proto", ".sh", ".yaml", ".toml"}:
            assert not marks.search(text), path


def test_no_two_tests_have_one_name() -> None:
    """pytest imports them by their bare names."""
    names = [path.stem for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(set(names)) == sorted(names)


def test_what_is_public_is_described() -> None:
    """Modules, and classes and functions of more than a few lines. Errors have their pages."""
    for room in ROOMS:
        for path in modules(room):
            tree = ast.parse(path.read_text("utf-8"))
            if not tree.body:
                continue
            assert ast.get_docstring(tree), path
            if path.name == "errors.py":
                continue
            for node in tree.body:
                if isinstance(node, ast.ClassDef | ast.FunctionDef):
                    told = (
                        node.name.startswith("_") or len(node.body) <= 3 or ast.get_docstring(node)
                    )
                    assert told or is_a_record(node), f"{path}: {node.name} has no docstring"


def is_a_record(node: ast.stmt) -> bool:
    """A class of nothing but named fields."""
    return isinstance(node, ast.ClassDef) and all(
        isinstance(line, ast.AnnAssign) for line in node.body
    )
