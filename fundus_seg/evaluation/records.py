"""Case records on disk: a CSV with a row a case and structure, and the JSON that says what it is. No torch here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from fundus_seg.builtins import CheckpointName
from fundus_seg.digests import file_digest, short_hash
from fundus_seg.errors import RunError
from fundus_seg.evaluation.score_case import FAULTS, SCORES, SIZES
from fundus_seg.progress import SILENT, Progress
from fundus_seg.protocol import STRUCTURES, Scoring
from fundus_seg.runs.atomic import write_json, write_text

EVALUATION_FORMAT: Literal[3] = 3
"""Of 1 the rows had no sizes, faults, Jaccard, NSD or HD95-max; of 2 the faults were counted after post-processing, and
under `released-code` HD was the HD95. None can be had from the others, so neither is read."""
Scored = Literal["holdout", "in-domain"]
"""The holdout's test split, or the `calibrate` halves of the source domains' test splits, which chose no checkpoint."""


class RunName(BaseModel):
    """Which run the scores are of; of masks from elsewhere, preset and precision are `unknown`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: str
    operator: str
    """With the slug of what differs from the preset."""
    holdout: str
    seed: int
    precision: str = "fp32"
    """That it trained in."""


class EvaluationMeta(BaseModel):
    """What the JSON beside the case records holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[3] = EVALUATION_FORMAT
    protocol: Scoring
    protocol_digest: str
    data: dict[str, str]
    """Digest of the photographs and masks of each split that trained, selected or was scored, by `domain/split`."""
    phantom: bool
    selection: str
    checkpoint: CheckpointName | None
    """None: masks from elsewhere."""
    scored: Scored = "holdout"
    probed: bool = False
    """Whether the holdout was scored after each epoch of the run, which changes nothing of it."""
    checkpoint_sha256: str
    cases_sha256: str = ""
    """Of the CSV: a file that was cut or edited is not taken for whole."""
    truth_digest: str = ""
    """Of the true masks as they were decoded, whatever files they came from; empty in records of older versions."""
    code: dict[str, str] = {}
    """Digest of the file of each plugin that trained, by its setting; empty in records of older versions."""
    unpredicted: tuple[str, ...] = ()
    """Cases of the truth that masks from elsewhere leave out."""
    run: RunName
    versions: dict[str, str]

    @property
    def elsewhere(self) -> bool:
        """Whether the masks come from another tool."""
        return self.checkpoint is None


@dataclass(frozen=True)
class Evaluation:
    """The case records of one checkpoint.

    Attributes:
        path: the CSV.
        meta: protocol, data digests, selection, run, versions.
        cases: a row a case and structure, columns as `score_case` gives them.
    """

    path: Path
    meta: EvaluationMeta
    cases: pd.DataFrame


def mask_digest(masks: NDArray[np.bool_]) -> str:
    """SHA-256 of masks (2, H, W), of their shape and their pixels, as hexadecimal digits."""
    return hashlib.sha256(f"{masks.shape}".encode() + np.packbits(masks).tobytes()).hexdigest()


def truth_digest(masks: Mapping[str, str]) -> str:
    """16 hexadecimal digits of the true masks of some cases: names and `mask_digest`s."""
    return short_hash(masks, digits=16)


def write_evaluation(path: Path, meta: EvaluationMeta, text: str) -> None:
    """Write the CSV of case records and, beside it, the JSON that says what they are."""
    if path.with_suffix(".json").exists():  # a CSV is whole only while its JSON says what it is
        write_text(path.with_suffix(".json"), "")
    write_text(path, text)
    meta = meta.model_copy(update={"cases_sha256": file_digest(path)})
    write_json(path.with_suffix(".json"), meta.model_dump(mode="json"))


def read_evaluation(path: Path) -> Evaluation:
    """An evaluation file with the JSON beside it.

    Raises:
        RunError: either is missing, damaged, of another format, or not what was written.
    """
    meta = read_meta(path)
    try:
        if file_digest(path) != meta.cases_sha256:
            raise RunError(
                f"{path}: cut off or changed since it was written; evaluate the run again, "
                "which keeps the whole cases of one that was cut off"
            )
        names = {"protocol": str, "domain": str, "case": str, "structure": str}
        cases = pd.read_csv(path, dtype=names, keep_default_na=False, na_values=[""])
        numbers = cases[[*SIZES, *FAULTS, *SCORES]].apply(pd.to_numeric)
        return Evaluation(path, meta, cases.assign(**numbers))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: not a whole evaluation; evaluate the run again") from error


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


def read_meta(path: Path) -> EvaluationMeta:
    """The JSON beside an evaluation file."""
    try:
        meta = json.loads(path.with_suffix(".json").read_text("utf8"))
        if isinstance(meta, dict) and meta.get("format") != EVALUATION_FORMAT:
            raise RunError(
                f"{path}: format {meta.get('format')}, this version reads {EVALUATION_FORMAT}; evaluate the run again"
            )
        return EvaluationMeta.model_validate(meta)
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: not a whole evaluation; evaluate the run again") from error


def _whole_cases(path: Path) -> list[bytes]:
    """The lines of an evaluation file, its first and then those of cases with all their rows; [] if there is none."""
    if not path.is_file():
        return []
    with path.open("rb") as file:
        lines = [line for line in file if line.endswith(b"\n")]
    return lines[: len(lines) - (len(lines) - 1) % len(STRUCTURES)]
