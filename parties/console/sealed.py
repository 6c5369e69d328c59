"""A user's key under a password, for sign-ins at the console.

The file lies in the home and holds the key encrypted under what Argon2id (RFC 9106) makes of the
password. There is no other record of a password: the one that opens the key is the right one.
"""

import json
from secrets import token_bytes
from typing import Any

from argon2.low_level import Type, hash_secret_raw

from compliance.canonical import from_base64, to_base64
from compliance.errors import KeyFileError
from compliance.signing import SigningKey
from parties.config import Home
from parties.errors import PasswordUnfit
from parties.files import write_private
from parties.people import check_name
from protos.errors import ConcordatError

MIN_PASSWORD, MAX_PASSWORD = 12, 1024  # characters

# RFC 9106, section 4, second recommended option.
COST = {"time_cost": 3, "memory_cost": 1 << 16, "parallelism": 4}
_MAX_COST = {"time_cost": 16, "memory_cost": 1 << 20, "parallelism": 16}  # of a file that is read
_SALT_BYTES = 16
_MAX_FILE = 8 << 10


def seal(home: Home, name: str, key: SigningKey, password: str) -> None:
    """Lets a user sign in by this password from now on. Raises PasswordUnfit, UserConflict."""
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise PasswordUnfit(
            f"A password has at least {MIN_PASSWORD} characters.",
            "Choose a longer one, such as a few words.",
        )
    path = _path(home, name)
    salt = token_bytes(_SALT_BYTES)
    pem = key.to_pem(_derived(password, salt, COST))
    said = {"user": name, "salt": to_base64(salt), **COST, "key": pem.decode()}
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(path, json.dumps(said).encode(), overwrite=True)


def unseal(home: Home, name: str, password: str) -> SigningKey | None:
    """The user's key; None for a wrong password, and for a user who has none.

    Takes as long for one as for the other.
    """
    held = _read(home, name)
    said = held or {"salt": bytes(_SALT_BYTES), **COST}
    derived = _derived(password[:MAX_PASSWORD], said["salt"], said)
    if held is None:
        return None
    try:
        return SigningKey.from_pem(held["key"].encode(), derived)
    except KeyFileError:
        return None


def forget(home: Home, name: str) -> None:
    """Nobody signs in by this user's password any more."""
    _path(home, name).unlink(missing_ok=True)


def has_password(home: Home, name: str) -> bool:
    return _read(home, name) is not None


def _derived(password: str, salt: bytes, cost: dict[str, Any]) -> str:
    """What the key is encrypted under, 32 bytes in hex."""
    costs = {name: cost[name] for name in COST}
    return hash_secret_raw(
        password.encode(errors="replace"), salt, hash_len=32, type=Type.ID, **costs
    ).hex()


def _path(home: Home, name: str) -> Any:
    check_name(name)
    return home.key("console") / f"{name}.json"


def _read(home: Home, name: str) -> dict[str, Any] | None:
    """What a file holds; None if there is none that can be used."""
    try:
        with _path(home, name).open("rb") as file:
            said = json.loads(file.read(_MAX_FILE))
        cost = {part: int(said[part]) for part in COST}
        salt = from_base64(said["salt"])
        fits = said["user"] == name and isinstance(said["key"], str) and len(salt) == _SALT_BYTES
        fits = fits and all(0 < cost[part] <= _MAX_COST[part] for part in COST)
        fits = fits and cost["memory_cost"] >= 8 * cost["parallelism"]  # Argon2's own floor
    except (OSError, ValueError, KeyError, TypeError, ConcordatError):
        return None
    return {**cost, "salt": salt, "key": said["key"]} if fits else None
