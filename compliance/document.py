"""YAML documents that people write and institutions sign.

The YAML 1.2 core schema: `2e+05` is a number, `no` and `2026-01-01` are text. What could make two
readers see two documents is refused: duplicate keys, anchors and aliases, tags, empty values.
"""

import math
import re
from collections.abc import Hashable
from typing import Any

import yaml

MAX_CHARACTERS = 256 * 1024
MAX_DEPTH = 24


class DocumentError(ValueError):
    """The text is not a document; the message says where and why."""


def load(text: str) -> dict[str, Any]:
    """The mapping a YAML text holds, of JSON's types only. Raises DocumentError."""
    if len(text) > MAX_CHARACTERS:
        raise DocumentError(f"it is longer than {MAX_CHARACTERS} characters")
    try:
        value = yaml.load(text, _Loader)  # noqa: S506 (a SafeLoader with fewer types)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise DocumentError(f"{where}{error.problem}") from None
    except yaml.YAMLError:
        raise DocumentError("it holds a character that YAML does not allow") from None
    if not isinstance(value, dict):
        raise DocumentError("it is not a mapping of names to values")
    return value


def shown(name: str) -> str:
    """A document's own word as a message may hold it: cut short and kept printable."""
    return "".join(filter(str.isprintable, name))[:64]


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own class attribute)
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "anchor", None):
            raise _refusal(event, "anchors and aliases are not allowed")
        if getattr(event, "tag", None):
            raise _refusal(event, "tags are not allowed")
        if self.depth == MAX_DEPTH:
            raise _refusal(event, f"nested deeper than {MAX_DEPTH} levels")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        mapping: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise _refusal(key_node, "a name must be text; put it in quotes")
            if key in mapping:
                raise _refusal(key_node, f"{shown(key)} is given twice")
            mapping[key] = self.construct_object(value_node, deep=deep)
        return mapping


def _refusal(at: Any, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=at.start_mark)


def _construct_bool(_: yaml.SafeLoader, node: yaml.ScalarNode) -> bool:
    return str(node.value).lower() == "true"


def _construct_int(_: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return int(node.value)


def _construct_float(_: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    number = float(node.value)
    if math.isinf(number):
        raise _refusal(node, "the number is too large")
    return number


def _construct_null(_: yaml.SafeLoader, node: yaml.ScalarNode) -> None:
    raise _refusal(node, "a value is missing; write one, {} or [], or leave the name out")


_SCALARS = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF", _construct_bool),
    ("int", r"[-+]?[0-9]{1,300}", "-+0123456789", _construct_int),
    (
        "float",
        r"[-+]?(\.[0-9]{1,300}|[0-9]{1,300}(\.[0-9]{0,300})?)([eE][-+]?[0-9]{1,3})?",
        "-+.0123456789",
        _construct_float,
    ),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""], _construct_null),
)
for _name, _pattern, _first, _construct in _SCALARS:
    _tag = f"tag:yaml.org,2002:{_name}"
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), list(_first))
    _Loader.add_constructor(_tag, _construct)
