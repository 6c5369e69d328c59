"""What aics-tlog says of checkpoints and proofs: a program for an environment of its own.

It reads cases as JSON from standard input and writes, for each, whether aics-tlog accepts it. The
tlog-proof file, which aics-tlog has no reader for, is taken apart here as its specification says.
"""

import base64
import json
import sys

import aics_tlog


def decoded(text: str) -> bytes:
    """In base64's one form: the spare bits of the last character are zero."""
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError("not the one form")
    return data


def checkpoint(case: dict) -> bool:
    log, *witnesses = map(aics_tlog.parse_vkey, case["keys"])
    note = aics_tlog.parse_note(case["note"].encode())
    found = aics_tlog.verify_checkpoint(
        note, log, witnesses, len(witnesses), expected_origin=log.name
    )
    return found.ok


def proof(case: dict) -> bool:
    head, separator, note = case["proof"].partition("\n\n")
    header, index, *hashes = head.split("\n")
    if not separator or header != "c2sp.org/tlog-proof@v1" or not index.startswith("index "):
        return False
    if not checkpoint({"keys": case["keys"], "note": note}):
        return False
    signed = aics_tlog.parse_checkpoint(aics_tlog.parse_note(note.encode()).text)
    path = [*map(decoded, hashes)]
    place = int(index.removeprefix("index "))
    return aics_tlog.verify_leaf_inclusion(
        case["leaf"].encode(), place, signed.size, path, signed.root
    )


def consistency(case: dict) -> bool:
    roots = [decoded(case[name]) for name in ("old_root", "new_root")]
    path = [*map(decoded, case["hashes"])]
    return aics_tlog.verify_consistency(case["old"], case["new"], *roots, path)


KINDS = {"checkpoint": checkpoint, "proof": proof, "consistency": consistency}


def accepts(case: dict) -> bool:
    try:
        return bool(KINDS[case["kind"]](case))
    except ValueError:
        return False


if __name__ == "__main__":
    json.dump([accepts(case) for case in json.load(sys.stdin)], sys.stdout)
