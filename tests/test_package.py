"""What is installed: a wheel that holds everything the program reads, in packages of ours."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"compliance", "federated", "parties", "protos"}

pytestmark = pytest.mark.skipif(
    not (shutil.which("maturin") and shutil.which("cargo")),
    reason="no maturin or no cargo to build a wheel with",
)

# Of the installed program, away from the checkout: what it reads of itself.
LOOK = """
import sys
sys.path.insert(0, sys.argv[1])
from parties import catalogue
from parties.console import app, originals, words
from parties.console.pages import jobs
from parties.console.visit import _PAGES
from parties.recipes import figures, library
from parties.reports import page
assert jobs.ERRORS.is_relative_to(sys.argv[1]), jobs.ERRORS
print(len(list(jobs.ERRORS.glob("E*.md"))))
for language in words.LANGUAGES:
    assert words.catalogue(language)
for name in ("changes", "disclosure", "errors", "features", "findings", "registers"):
    assert words.translations("zh", name), name
assert originals.error("zh", "E612")
for template in _PAGES.list_templates():
    _PAGES.get_template(template)
page._PAGES.get_template("report.html")
assert all(library.question(name) for name in figures.NAMES)
assert catalogue.listed()
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as pip does, but for the optimizations of its native part."""
    folder = tmp_path_factory.mktemp("wheel")
    target = ROOT / "native" / "target"
    subprocess.run(
        ["maturin", "build", "--profile", "dev", "--out", folder, "--quiet"],
        cwd=ROOT,
        env=os.environ | {"CARGO_TARGET_DIR": os.environ.get("CARGO_TARGET_DIR", str(target))},
        check=True,
        capture_output=True,
    )
    (found,) = folder.glob("*.whl")
    return found


def test_nothing_lies_beside_our_packages(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES


def test_every_file_of_our_packages_is_in_it(wheel: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", *PACKAGES], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    ours = {name for name in listed if not (ROOT / name).is_symlink()}
    assert ours and not ours - {*zipfile.ZipFile(wheel).namelist()}


def test_it_runs_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    looked = subprocess.run(
        [sys.executable, "-c", LOOK, str(tmp_path / "site")],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert looked.returncode == 0, looked.stderr
    assert int(looked.stdout) == len([*(ROOT / "docs" / "errors").glob("E*.md")])
