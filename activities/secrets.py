"""Known secret values are taken out of whatever is recorded: providers echo keys, and so do careless tools."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from threading import Lock
from typing import Any

_NAMED_SECRET = re.compile(r"(API_?KEY|_KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE)
SECRET_VARIABLE = "HOLDFAST_SECRET_"  # noqa: S105 - of a name
"""What the names of environment variables begin with that hold tools' secrets."""
SHORTEST = 8
"""Characters; what is shorter is taken for no secret, and would be found in any text."""
_MOST_LEARNT = 500
_TELLING = 4
"""Characters of a secret's beginning that would say something of it."""


_learnt: dict[str, str] = {}
"""Form of a secret → its handle: those that tools were given, the latest last."""
_learning = Lock()


def names_secret(variable: str) -> bool:
    """Say whether an environment variable's name tells that it holds a secret."""
    return variable.startswith(SECRET_VARIABLE) or _NAMED_SECRET.search(variable) is not None


class Scrubber:
    """Replaces each known secret by its name."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self._names = {
            form: name for name, value in secrets.items() if len(value) >= SHORTEST for form in _forms(value)
        }
        longest_first = sorted(self._names, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if self._names else None
        self._longest = len(longest_first[0]) if longest_first else 0
        self._beginnings = frozenset(form[:_TELLING] for form in self._names)

    @classmethod
    def of_environment(cls, more: Iterable[tuple[str, str]] = ()) -> Scrubber:
        """Know every environment variable whose name says that it holds a secret, and `more` (name, value) pairs."""
        named = {name: value for name, value in os.environ.items() if names_secret(name)}
        return cls({**named, **dict(more)})

    def learn(self, name: str, value: str) -> None:
        """Know one more secret from now on, in every scrubber of this process; the latest 500 are."""
        with _learning:
            for form in sorted(_forms(value), key=len):
                _learnt.pop(form, None)
                _learnt[form] = name
            while len(_learnt) > _MOST_LEARNT:
                _learnt.pop(next(iter(_learnt)))

    def text(self, text: str) -> str:
        """Return a text without secrets."""
        for form, name in reversed(tuple(_learnt.items())):
            if form in text:
                text = text.replace(form, f"[secret {name}]")
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda found: f"[secret {self._names[found.group()]}]", text)

    def without_beginning(self, text: str) -> str:
        """Return a text that may still grow without its end, where that is the beginning of a secret."""
        for start in range(max(0, len(text) - self._longest + 1), len(text) - _TELLING + 1):
            if text[start : start + _TELLING] in self._beginnings and self._begins_secret(text[start:]):
                return text[:start]
        return text

    def _begins_secret(self, text: str) -> bool:
        return any(form.startswith(text) for form in self._names)

    def json(self, value: Any) -> Any:
        """Return JSON data without secrets, in keys as well."""
        if self._pattern is None and not _learnt:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(key): self.json(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self.json(each) for each in value]
        return value


def _forms(secret: str) -> set[str]:
    """A secret as it stands, and as it stands inside a JSON text."""
    return {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
