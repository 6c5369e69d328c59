"""The shell sessions in a page: ```console blocks, `$ ` before each command, then its output."""

import re
import subprocess
from pathlib import Path

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[str]:
    """The commands of all sessions, in order."""
    return [
        line.removeprefix("$ ")
        for block in _BLOCK.findall(page)
        for line in block.splitlines()
        if line.startswith("$ ")
    ]


def played(page: str, folder: Path) -> str:
    """The page with every command run in `folder` again, and its output in place of the old one."""

    def play(block: re.Match[str]) -> str:
        session = "".join(
            f"$ {command}\n{_output(command, folder)}" for command in commands(block[0])
        )
        return f"```console\n{session}```"

    return _BLOCK.sub(play, page)


def _output(command: str, folder: Path) -> str:
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout
