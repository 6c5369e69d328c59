"""The console without a browser: who gets in, what a form needs, what an answer bears."""

import json
import stat
import subprocess
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from conftest import make
from consoles import (
    PASSWORD,
    PORT,
    USERS,
    Clock,
    Visitor,
    as_user,
    cheap_passwords,
    shipped_passwords,
    signed_in,
    staff,
)
from starlette.testclient import TestClient
from typer.testing import CliRunner

from compliance.signing import SigningKey
from parties import people
from parties.cli import app as commands
from parties.console import app, guard, sealed, server, sessions, words
from parties.console.pages import jobs
from parties.console.visit import Console
from parties.errors import PasswordUnfit, PortBusy
from parties.node import Node

pytestmark = pytest.mark.filterwarnings("ignore:Setting per-request cookies")


@pytest.fixture(scope="module", autouse=True)
def cheap() -> Iterator[None]:
    with cheap_passwords():
        yield


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Node:
    made = make(tmp_path_factory.mktemp("console"), "lone")
    staff(made)
    return made


@pytest.fixture
def console(node: Node) -> Console:
    return Console(node, PORT, Clock())


def last_entry(node: Node) -> dict:
    with node.reading() as conn:
        *_, entry = node.log.entries(conn)
    return json.loads(entry.leaf)


# Signing in


@pytest.mark.parametrize("name", USERS)
def test_a_user_signs_in_by_password_and_signs_for_it(console: Console, name: str) -> None:
    visitor = signed_in(console, name)
    entry = last_entry(console.node)
    assert (entry["type"], entry["read"], entry["by"]) == ("audit.read", "console", name)
    assert "signature" in entry
    assert name in visitor.see("/")


def test_a_user_signs_in_by_key_and_chooses_a_password(console: Console, node: Node) -> None:
    visitor = Visitor(console)
    pem = (node.home.key("users") / "audra.pem").read_bytes()
    answer = visitor.http.post("/sign-in/key", data={"name": "audra"}, files={"key": pem})
    assert answer.status_code == 303
    changed = visitor.do("/account/password", password="another battery", again="another battery")
    assert words.say("en", "account.changed") in changed
    assert Visitor(console).sign_in("audra").status_code == 401
    assert Visitor(console).sign_in("audra", "another battery").status_code == 303
    visitor.do("/account/password", password=PASSWORD, again=PASSWORD)


def test_a_key_that_has_a_passphrase_opens_with_it(console: Console, node: Node) -> None:
    key = SigningKey.load(node.home.key("users") / "li.pem")
    fields = {"name": "li", "passphrase": PASSWORD}
    files = {"key": key.to_pem(PASSWORD)}
    assert Visitor(console).http.post("/sign-in/key", data=fields, files=files).is_redirect
    fields["passphrase"] = "a wrong one, long enough"
    refused = Visitor(console).http.post("/sign-in/key", data=fields, files=files)
    assert refused.status_code == 401


def test_passwords_that_differ_or_are_short_change_nothing(console: Console) -> None:
    visitor = signed_in(console, "li")
    for password, again in (("short", "short"), (PASSWORD, PASSWORD + "!")):
        refused = visitor.post("/account/password", password=password, again=again)
        assert refused.status_code == 400
        assert PasswordUnfit.code in refused.text
    assert Visitor(console).sign_in("li").status_code == 303


def test_every_refusal_says_the_same(console: Console, node: Node) -> None:
    other = SigningKey.generate().to_pem()
    unsealed = node.home.key("console") / "wang.json"
    held = unsealed.read_bytes()
    attempts = [
        Visitor(console).sign_in("li", "a wrong password"),
        Visitor(console).sign_in("nobody"),
        Visitor(console).sign_in("../li"),
        Visitor(console).sign_in("\udcff".encode("utf-8", "replace").decode()),
        Visitor(console).http.post("/sign-in/key", data={"name": "li"}, files={"key": other}),
        Visitor(console).http.post("/sign-in/key", data={"name": "li"}, files={"key": b"no key"}),
    ]
    unsealed.unlink()
    attempts.append(Visitor(console).sign_in("wang"))
    unsealed.write_bytes(held)
    for answer in attempts:
        assert answer.status_code == 401
        assert words.say("en", "failure.E661").replace("'", "&#39;") in answer.text
        assert "set-cookie" not in answer.headers


def test_after_a_few_failures_a_name_has_to_wait(console: Console) -> None:
    for _ in range(sessions.PER_NAME):
        assert Visitor(console).sign_in("li", "a wrong password").status_code == 401
    limited = Visitor(console).sign_in("li")
    assert limited.status_code == 429
    assert words.say("en", "failure.E662") in limited.text
    assert Visitor(console).sign_in("he").status_code == 303
    console.clock.now += sessions.WINDOW_SECONDS
    assert Visitor(console).sign_in("li").status_code == 303


def test_after_many_failures_everybody_has_to_wait(console: Console) -> None:
    for count in range(sessions.IN_ALL):
        console.attempts.failed(f"name {count}")
    assert Visitor(console).sign_in("li").status_code == 429


@pytest.mark.parametrize("lasting", [False, True], ids=["idle", "lasting"])
def test_a_sign_in_expires(console: Console, lasting: bool) -> None:
    visitor = signed_in(console, "li")
    step = sessions.IDLE_SECONDS - 1
    if lasting:
        for _ in range(int(sessions.LASTING_SECONDS // step)):
            console.clock.now += step
            visitor.see("/")
    else:
        console.clock.now += step
        visitor.see("/")
        console.clock.now += 1
    console.clock.now += step
    answer = visitor.get("/")
    assert answer.headers["location"] == "/sign-in?expired=true"
    assert words.say("en", "sign_in.expired") in visitor.see("/sign-in?expired=true")


def test_signing_out_ends_the_session_for_whoever_has_its_cookie(console: Console) -> None:
    visitor, thief = signed_in(console, "li"), Visitor(console)
    thief.http.cookies.update(visitor.http.cookies)
    thief.see("/")
    assert visitor.post("/sign-out").headers["location"] == "/sign-in"
    for one in (visitor, thief):
        assert one.get("/").status_code == 303


def test_whoever_is_no_user_any_more_is_signed_out(tmp_path: Path) -> None:
    node = make(tmp_path, "lone")
    people.add(node, "li", "officer")
    people.add(as_user(node, "li"), "wang", "engineer")
    sealed.seal(node.home, "wang", people.signing(as_user(node, "wang"))[1], PASSWORD)
    console = Console(node, PORT)
    visitor = signed_in(console, "wang")
    people.remove(as_user(node, "li"), "wang")
    assert visitor.get("/").status_code == 303
    assert visitor.sign_in("wang").status_code == 401


def test_a_node_without_users_says_how_to_add_the_first(tmp_path: Path) -> None:
    visitor = Visitor(Console(make(tmp_path, "lone"), PORT))
    assert visitor.get("/").headers["location"] == "/sign-in"
    assert "concordat user add" in visitor.see("/sign-in")
    assert "<form" not in visitor.see("/sign-in").partition("<main")[2]
    assert visitor.sign_in("li").status_code == 401


def test_the_sessions_are_so_many_at_most() -> None:
    clock = Clock()
    held = sessions.Sessions(clock)
    cookies = []
    for _ in range(sessions.MAX_SESSIONS + 1):
        clock.now += 1
        cookies.append(held.open(people.Actor("li")))
    assert held.find(cookies[0]) is None
    assert all(held.find(cookie) for cookie in cookies[1:])


# Keys under passwords


def test_a_sealed_key_lies_nowhere_in_clear(console: Console, node: Node) -> None:
    path = node.home.key("console") / "li.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    key = SigningKey.load(node.home.key("users") / "li.pem")
    assert sealed.unseal(node.home, "li", PASSWORD).public == key.public
    body = key.to_pem().split(b"\n")[1]
    assert body not in path.read_bytes()
    assert key.public.hex() not in path.read_text()


def test_a_password_costs_what_it_should(tmp_path: Path) -> None:
    """RFC 9106, section 4, the second recommended option."""
    home = make(tmp_path, "lone").home
    with shipped_passwords():
        sealed.seal(home, "li", SigningKey.generate(), PASSWORD)
    said = json.loads((home.key("console") / "li.json").read_bytes())
    assert (said["time_cost"], said["memory_cost"], said["parallelism"]) == (3, 64 << 10, 4)


@pytest.mark.parametrize(
    "change",
    [
        {"memory_cost": 1 << 30},
        {"time_cost": 0},
        {"memory_cost": 1},
        {"salt": "AAAA"},
        {"user": "he"},
        {"key": "no key"},
        {"key": 7},
        {"parallelism": "many"},
    ],
    ids=str,
)
def test_a_sealed_file_that_was_changed_opens_nothing(
    console: Console, node: Node, change: dict
) -> None:
    path = node.home.key("console") / "li.json"
    held = path.read_bytes()
    try:
        path.write_text(json.dumps(json.loads(held) | change))
        assert sealed.unseal(node.home, "li", PASSWORD) is None
    finally:
        path.write_bytes(held)


def test_the_command_seals_the_users_key(tmp_path: Path) -> None:
    node = make(tmp_path, "lone")
    home = str(node.home.path)
    people.add(node, "li", "officer")
    words_of = ["user", "password", home, "--as", "li"]
    done = CliRunner().invoke(commands, words_of, input=f"{PASSWORD}\n{PASSWORD}\n")
    assert done.exit_code == 0, done.output
    assert Visitor(Console(node, PORT)).sign_in("li").status_code == 303
    refused = CliRunner().invoke(commands, words_of[:3], input="")
    assert "E320" in refused.output


# What every request needs, and what every answer bears


PATHS = ["/", "/sign-in", "/static/console.css", "/nothing", "/account"]


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_bears_the_headers(console: Console, path: str) -> None:
    for visitor in (Visitor(console), signed_in(console, "li")):
        answer = visitor.get(path)
        for name, value in guard.HEADERS.items():
            assert answer.headers.get_list(name) == [value]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert "server" not in answer.headers


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1", "localhost:1", "127.0.0.1.evil.example:8460", "", "0.0.0.0:8460"],
)
def test_other_names_are_refused(console: Console, host: str) -> None:
    answer = Visitor(console).get("/sign-in", headers={"host": host})
    assert answer.status_code == 421
    assert answer.headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize("host", ["127.0.0.1:8460", "localhost:8460", "[::1]:8460"])
def test_names_of_loopback_are_not(console: Console, host: str) -> None:
    assert Visitor(console).get("/sign-in", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:8461", None])
def test_a_form_of_another_page_is_refused(console: Console, origin: str | None) -> None:
    visitor = Visitor(console)
    del visitor.http.headers["origin"]
    headers = {} if origin is None else {"origin": origin}
    fields = {"name": "li", "password": PASSWORD}
    answer = visitor.http.post("/sign-in/password", data=fields, headers=headers)
    assert answer.status_code == 403
    assert not answer.cookies


def test_every_form_needs_the_sessions_token(console: Console) -> None:
    """Whatever may be posted, but for signing in itself."""
    visitor, other = signed_in(console, "li"), signed_in(console, "li")
    tried = 0
    for path in posts(console):
        for token in ({}, {"form_token": ""}, {"form_token": other.token()}):
            answer = visitor.http.post(path, data=token)
            assert answer.status_code == 403, path
            assert "E663" in answer.text
            tried += 1
    assert tried >= 6
    assert Visitor(console).http.post("/sign-out").headers["location"] == "/sign-in"


def posts(console: Console) -> list[str]:
    """Where forms go, with made-up names in place of what is in braces."""
    routes = app.make(console)._app.routes
    paths = [
        (getattr(one, "path", ""), method) for one in flattened(routes) for method in methods(one)
    ]
    return [
        "/".join("x" if part.startswith("{") else part for part in path.split("/"))
        for path, method in paths
        if method == "POST" and not path.startswith("/sign-in")
    ]


def flattened(routes: list) -> list:
    return [
        inner
        for route in routes
        for inner in (
            flattened(route.original_router.routes)
            if hasattr(route, "original_router")
            else [route]
        )
    ]


def methods(route: object) -> set[str]:
    return getattr(route, "methods", None) or set()


def test_the_cookie_is_for_this_console_alone(console: Console) -> None:
    answer = Visitor(console).sign_in("li")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"concordat-{PORT}=")
    for part in ("HttpOnly", "SameSite=strict", "Path=/"):
        assert part in cookie
    assert "expires" not in cookie.lower()
    assert "max-age" not in cookie.lower()


def test_what_is_too_large_is_not_read(console: Console) -> None:
    visitor = Visitor(console)
    large = visitor.http.post("/sign-in/password", content=b"x" * (guard.MAX_BODY + 1))
    assert large.status_code == 413

    def chunks():
        for _ in range(20):
            yield b"x" * (guard.MAX_BODY // 10)

    assert visitor.http.post("/sign-in/password", content=chunks()).status_code == 413
    header = {"content-length": "1" + "0" * 40}
    assert visitor.http.post("/sign-in/password", headers=header).status_code == 413


def test_a_file_that_is_uploaded_stays_in_memory() -> None:
    """Starlette writes what is larger than this to a file; the guard lets nothing as large in."""
    from starlette.formparsers import MultiPartParser

    assert MultiPartParser.spool_max_size >= guard.MAX_BODY


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2f..%2fnode.py",
        "/static//etc/passwd",
        "/static/%00",
        "/static/..%5capp.py",
    ],
)
def test_nothing_but_the_static_files_is_served(console: Console, path: str) -> None:
    answer = Visitor(console).get(path)
    assert answer.status_code in {400, 404}
    assert "import" not in answer.text


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json"])
def test_the_framework_shows_no_pages_of_its_own(console: Console, path: str) -> None:
    assert signed_in(console, "li").get(path).status_code == 404


def test_a_language_is_chosen_and_leads_nowhere_else(console: Console) -> None:
    visitor = Visitor(console)
    assert 'lang="zh"' in visitor.get("/sign-in", headers={"accept-language": "zh-CN,en"}).text
    assert visitor.get("/language/zh?back=/sign-in").headers["location"] == "/sign-in"
    assert 'lang="zh"' in visitor.see("/sign-in")
    for back in ("//evil.example", "https://evil.example", "/\\evil.example", ""):
        assert visitor.get("/language/en", params={"back": back}).headers["location"] == "/"
    visitor.get("/language/../../x?back=/")
    assert 'lang="en"' in visitor.see("/sign-in")


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("", "en"),
        ("fr", "en"),
        ("zh", "zh"),
        ("en-GB,en;q=0.9,zh;q=0.8", "en"),
        ("fr,zh-Hant;q=0.5,en;q=0.1", "zh"),
        ("zh;q=0,en;q=0.1", "en"),
        ("zh;q=x", "en"),
        (";;;,,,q=", "en"),
    ],
)
def test_the_browsers_language_is_heard(accepted: str, language: str) -> None:
    assert words.preferred(accepted) == language


def test_a_busy_port_is_said(node: Node) -> None:
    with (
        server.serving(node, 0) as serving,
        pytest.raises(PortBusy),
        server.serving(node, serving.port),
    ):
        pass


def test_it_is_served_on_loopback_and_stops(node: Node) -> None:
    with server.serving(node, 0) as serving:
        address = f"http://127.0.0.1:{serving.port}/sign-in"
        with urlopen(address) as answer:
            assert answer.status == 200
    assert not [thread for thread in threading.enumerate() if thread.name == "console"]
    with pytest.raises(URLError):
        urlopen(address)


def test_an_unforeseen_failure_is_no_trace(console: Console) -> None:
    visitor = signed_in(console, "li")
    console.node.runs = None  # as a mistake of ours would have it
    try:
        quiet = TestClient(visitor.http.app, visitor.http.base_url, raise_server_exceptions=False)
        quiet.cookies.update(visitor.http.cookies)
        answer = quiet.get("/")
    finally:
        del console.node.runs
    assert answer.status_code == 500
    assert words.say("en", "failure.broken") in answer.text
    assert "Traceback" not in answer.text
    assert "TypeError" not in answer.text


def test_a_wheel_holds_all_that_the_console_reads() -> None:
    """Maturin packs whatever lies in these packages and git does not ignore, and what it names."""
    root = Path(app.__file__).parents[2]
    settings = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["maturin"]
    room = Path(app.__file__).parent
    assert room.relative_to(root).parts[0] in settings["python-packages"]
    read = [path for name in ("templates", "static", "words") for path in (room / name).iterdir()]
    names = [str(path.relative_to(root)) for path in read]
    assert len(names) > 20
    ignored = subprocess.run(
        ["git", "check-ignore", *names], cwd=root, capture_output=True, text=True, check=False
    )
    assert not ignored.stdout
    assert {path.name for path in root.glob(settings["include"][-1])} == {
        path.name for path in jobs.ERRORS.glob("*.md")
    }
