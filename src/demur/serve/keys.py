"""Who may ask: bearer keys, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final

from demur.errors import InputError

#: Environment variable with keys, parted by commas.
VARIABLE = "DEMUR_API_KEYS"

#: Shorter keys can be guessed.
SHORTEST = 16


@final
class Keys:
    """Keys that a client may show; with none of them anyone may ask."""

    def __init__(self, keys: Sequence[str]) -> None:
        for place, key in enumerate(keys, 1):
            if len(key) < SHORTEST:
                raise InputError(
                    f"Key {place} has {len(key)} characters; give each at least {SHORTEST}. Make one "
                    "with: python -c 'import secrets; print(secrets.token_urlsafe())'"
                )
        self._digests = [_digest(key) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def owner(self, shown: str) -> str | None:
        """A name for the holder of a key that is ours, else None.

        Digests of one length are compared, all of them, so that the time taken tells nothing.
        """
        digest = _digest(shown)
        found = [hmac.compare_digest(digest, own) for own in self._digests]
        return f"key-{found.index(True)}" if any(found) else None


def shown(headers: Mapping[str, str]) -> str:
    """The key in a request's headers, as OpenAI's clients show it or as LiteLLM does; or nothing."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")


def read_keys(path: Path | None) -> Keys:
    """Keys of a file (one a line, ``#`` begins a comment) and of ``DEMUR_API_KEYS``.

    Raises:
        InputError: the file is not there or others may read it, or a key is too short.
    """
    keys = [key.strip() for key in os.environ.get(VARIABLE, "").split(",")]
    if path is not None:
        if not path.is_file():
            raise InputError(f"No key file at {path}. Write one key a line into it.")
        if path.stat().st_mode & 0o077:
            raise InputError(f"Others may read the key file {path}. Run: chmod 600 {path}")
        keys += [line.partition("#")[0].strip() for line in path.read_text("utf-8").splitlines()]
    return Keys([key for key in keys if key])


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
