"""Modules that are loaded when they are first used: help is shown without a database's drivers."""

from importlib import import_module
from typing import Any


class Later:
    """A module, or what it calls by a name."""

    def __init__(self, module: str, name: str = "") -> None:
        self._module, self._name = module, name

    def _load(self) -> Any:
        module = import_module(self._module)
        return getattr(module, self._name) if self._name else module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._load(), name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._load()(*args, **kwargs)
