"""Hash the identifiers of patients and studies, so that no table holds them and equal ones stay equal.

A hospital's numbers are few: whoever knows how they are hashed finds each by trying all of them, and a salt that stands
beside them does not help. So the hash is keyed (HMAC-SHA256). The key is a secret of the user, who gets the same hashes
in every table, now and years later, while nobody else can make them.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from fundus_seg.errors import DataError, UsageError

KEY_VARIABLE = "FUNDUS_SEG_ID_KEY"
_DIGITS, _LEAST_KEY = 16, 16  # hexadecimal digits of a hash; characters of a key


class Naming(NamedTuple):
    """How identifiers are named in a table.

    Attributes:
        text: in words, as a record says it; equal words, equal names.
        name: gives the name of an identifier.
    """

    text: str
    name: Callable[[str], str]


def naming(*, keep: bool) -> Naming:
    """How identifiers are named: by their hash, or as they are with `keep`.

    The key is the value of $FUNDUS_SEG_ID_KEY, or else in the file `fundus-seg/identifiers.key` of the user's settings
    ($XDG_CONFIG_HOME or `~/.config`), which is made at first use, and which the user alone can read.

    Raises:
        UsageError: the key in the environment is too short.
        DataError: the key's file can neither be read nor made.
    """
    if keep:
        return Naming("kept", str)
    key = os.environ.get(KEY_VARIABLE) or _own_key()
    if len(key) < _LEAST_KEY:
        raise UsageError(f"${KEY_VARIABLE} is shorter than {_LEAST_KEY} characters, so others could guess it")
    return Naming(f"hashed, key {_hashed(key, 'the key itself')[:8]}", partial(_hashed, key))


def _hashed(key: str, identifier: str) -> str:
    """The hash of an identifier; nothing for nothing."""
    if not identifier:
        return ""
    return hmac.new(key.encode(errors="surrogateescape"), identifier.encode(), hashlib.sha256).hexdigest()[:_DIGITS]


def _own_key() -> str:
    try:
        path = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "fundus-seg/identifiers.key"
    except RuntimeError as error:
        raise DataError(
            f"this user has no home folder to keep the key of identifiers in; set ${KEY_VARIABLE}"
        ) from error
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            made = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
            made.touch(0o600, exist_ok=False)
            try:
                made.write_text(secrets.token_hex(32) + "\n", "ascii")
                with contextlib.suppress(FileExistsError):  # another process was first: its key stands
                    os.link(made, path)
            finally:
                made.unlink()
        return path.read_text("ascii").strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a key"
        raise DataError(f"the key of identifiers cannot be kept here ({reason}); set ${KEY_VARIABLE}", path) from error
