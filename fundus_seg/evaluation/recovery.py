"""An evaluation file that was cut off is made whole again from its whole cases."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from fundus_seg.progress import SILENT, Progress
from fundus_seg.protocol import STRUCTURES
from fundus_seg.records import write_text


def recover(path: Path, digest: str, count: int, score: Callable[[int], str], *, progress: Progress = SILENT) -> bool:
    """Keep the whole cases of a file that was cut off and score the others; whether it is now what was written.

    The digest vouches for the rows that are kept: where one of them was edited, or would be scored otherwise today, the
    file is left as it is.

    Args:
        path: the evaluation file, a row a case and structure.
        digest: SHA-256 of the file that was written.
        count: how many cases that had.
        score: gives the CSV of the cases from a number on, under its line of names.
        progress: where what is done is said.
    """
    kept = _whole_cases(path)
    first = len(kept) // len(STRUCTURES)
    if 0 < first < count:
        progress.line(f"{path}: cut off; {first} whole cases kept, scoring the other {count - first}")
        _, rows = score(first).split("\n", 1)
        whole = b"".join(kept) + rows.encode("utf8")
        if hashlib.sha256(whole).hexdigest() == digest:
            write_text(path, whole.decode("utf8"))
            return True
    progress.line(f"{path}: not what was written; scoring every case again")
    return False


def _whole_cases(path: Path) -> list[bytes]:
    """The lines of an evaluation file, its first and then those of cases with all their rows; [] if there is none."""
    if not path.is_file():
        return []
    with path.open("rb") as file:
        lines = [line for line in file if line.endswith(b"\n")]
    return lines[: len(lines) - (len(lines) - 1) % len(STRUCTURES)]
