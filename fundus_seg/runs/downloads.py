"""Files of networks that lie elsewhere: fetched once, kept in the cache, and taken only as what they were named by.

Only `.safetensors` are fetched, which hold numbers and texts and no code (`models.exchange`).
"""

from __future__ import annotations

import os
import re
import urllib.request
from pathlib import Path

from fundus_seg.cache_folder import cache_folder
from fundus_seg.digests import file_digest
from fundus_seg.errors import CheckpointError, UsageError, one_line
from fundus_seg.exchanged import EXCHANGED, WEIGHTS
from fundus_seg.runs.atomic import atomic_path

FOLDER = "models"
"""Where they lie in the cache."""
_TIMEOUT_S = 30
_ADDRESS = re.compile(r"https?://[^#\s]+")
_HUB = re.compile(r"hf:(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}")


def is_address(text: str) -> bool:
    """Whether a text is the address of a network: `https://...`, `http://...` or `hf:OWNER/NAME[@REVISION]`."""
    return text.startswith(("https://", "http://", "hf:"))


def fetched(address: str) -> Path:
    """The file that an address stands for, from the cache where it is there.

    `https://HOST/PATH#sha256=DIGEST` is kept under its digest, and asked for once. `hf:OWNER/NAME[@REVISION]` is the
    file `model.safetensors` of a repository, kept by huggingface_hub; a REVISION that is a commit names one content for
    ever, a branch or none may change.

    Raises:
        UsageError: the address is not of these forms, or an `https://` one has no digest.
        CheckpointError: the file cannot be had, or has another digest.
    """
    if found := _HUB.fullmatch(address):
        return _from_hub(address, found["name"], found["revision"])
    place, _, digest = address.partition("#sha256=")
    if not _ADDRESS.fullmatch(place):
        raise UsageError(f"{address}: give https://...#sha256=DIGEST, or hf:OWNER/NAME@REVISION")
    if not _DIGEST.fullmatch(digest):
        raise UsageError(
            f"{address}: add #sha256= and the 64 hexadecimal digits of the file's SHA-256, which say that it is the "
            "file that you mean"
        )
    path = cache_folder() / FOLDER / f"{digest}{EXCHANGED}"
    if not path.is_file():
        with atomic_path(path) as temporary:
            _download(place, temporary)
            if (other := file_digest(temporary)) != digest:
                raise CheckpointError(f"{place}: the file there has the SHA-256 {other}, not the one that was given")
    return path


def _download(address: str, path: Path) -> None:
    try:
        with urllib.request.urlopen(address, timeout=_TIMEOUT_S) as reply, path.open("wb") as file:
            while part := reply.read(2**20):
                file.write(part)
    except (OSError, ValueError) as error:  # urllib's errors are OSErrors
        raise CheckpointError(f"{address}: cannot be downloaded ({one_line(error)})") from error


def _from_hub(address: str, name: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download  # slow to import
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        endpoint = os.environ.get("HF_ENDPOINT")
        return Path(hf_hub_download(name, WEIGHTS, revision=revision, endpoint=endpoint))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(f"{address}: no {WEIGHTS} can be had from there ({one_line(error)})") from error
