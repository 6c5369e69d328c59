"""The committed stubs are what the .proto files say."""

import re
import tomllib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import pytest
from grpc_tools import protoc

ROOT = Path(__file__).parents[2]
STUBS = Path("protos/concordat/v1")

Made = dict[Path, str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The stubs that the installed generator makes, by their place in the project."""
    folder = tmp_path_factory.mktemp("stubs")
    outputs = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
    names = [str(path.relative_to(ROOT)) for path in sorted((ROOT / STUBS).glob("*.proto"))]
    assert names
    assert protoc.main(["protoc", f"-I{ROOT}", *outputs, *names]) == 0
    return {path.relative_to(folder): path.read_text("utf-8") for path in folder.rglob("*.py*")}


def test_there_is_a_stub_for_every_file(made: Made) -> None:
    assert made.keys() == {path.relative_to(ROOT) for path in (ROOT / STUBS).glob("*_pb2*.py*")}


def test_the_messages_are_current(made: Made) -> None:
    """Whatever version of the generator made the stubs: the descriptor in them is the same."""
    descriptor = re.compile(r"AddSerializedFile\((b'.*')\)$", re.MULTILINE)
    for name in [name for name in made if name.match("*_pb2.py")]:
        found, committed = (
            descriptor.findall(text) for text in (made[name], (ROOT / name).read_text("utf-8"))
        )
        assert len(found) == 1
        assert committed == found, f"{name}: run `make protos`"


def test_no_older_library_is_allowed_than_the_stubs_need() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    bounds = dict(need.split(">=") for need in project["dependencies"] if ">=" in need)

    def newer(name: str, least: Sequence[str]) -> bool:
        return [int(part) for part in bounds[name].split(".")] >= [int(part) for part in least]

    messages = (ROOT / STUBS / "peer_pb2.py").read_text("utf-8")
    made = re.search(r"Domain\.PUBLIC,\s+(\d+),\s+(\d+),\s+(\d+),", messages)
    assert made and newer("protobuf", made.groups())
    calls = (ROOT / STUBS / "peer_pb2_grpc.py").read_text("utf-8")
    (grpc,) = re.findall(r"GRPC_GENERATED_VERSION = '(.+)'", calls)
    assert newer("grpcio", grpc.split("."))


def test_the_stubs_are_what_this_generator_makes(made: Made) -> None:
    """Byte for byte, where the installed generator is the one they were made with."""
    stub = (ROOT / STUBS / "admin_pb2_grpc.py").read_text("utf-8")
    (made_with,) = re.findall(r"GRPC_GENERATED_VERSION = '(.+)'", stub)
    if made_with != version("grpcio-tools"):
        pytest.skip(f"made with grpcio-tools {made_with}, not {version('grpcio-tools')}")
    for name, text in made.items():
        assert (ROOT / name).read_text("utf-8") == text, f"{name}: run `make protos`"
