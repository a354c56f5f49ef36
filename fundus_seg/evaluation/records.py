"""Case records on disk: a CSV with one row per case and structure, and the JSON that says what it is.

A third file, `.pairs`, says how alike the masks of different cases are. It stands apart so that the other two stay what
earlier versions read and write; where it is missing, since an earlier version scored the run, this is not known.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, TypeAdapter

from fundus_seg.builtins import OPERATORS, CheckpointName
from fundus_seg.digests import file_digest, short_hash
from fundus_seg.errors import RunError, counted
from fundus_seg.evaluation.alike import Alike
from fundus_seg.evaluation.metric_table import METRICS
from fundus_seg.evaluation.score_case import FAULTS, READER_FIELDS, SIZES, TRUTH_SIZES
from fundus_seg.progress import SILENT, Progress
from fundus_seg.protocol import FRAME, STRUCTURES, ByReader, Combination, Scoring
from fundus_seg.runs.atomic import write_json, write_text
from fundus_seg.runs.identity import Column, RunIdentity

EVALUATION_FORMAT: Literal[4] = 4
"""Format 3, which is still read, had operator and recipe in one word. Formats 1 and 2 are not read: of 1 the rows had
no sizes, faults, Jaccard, NSD or HD95-max; of 2 the faults were counted after post-processing, and under
`released-code` HD was the HD95. None of these can be computed from the others. A new metric needs no new format."""
_PAIRS = ".pairs"
_ALIKE = TypeAdapter(dict[str, Alike])
_MOST = {"%": 1 + 1e-9, "px of 800": FRAME * math.sqrt(2) + 1e-9}
"""The largest value that a record may hold, by the unit of the metric: overlaps are fractions there."""
Scored = Literal["holdout", "in-domain"]
"""The holdout's test split, or the `calibrate` halves of the source domains' test splits, which chose no checkpoint."""


class EvaluationMeta(BaseModel):
    """What the JSON beside the case records holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[4] = EVALUATION_FORMAT
    protocol: Scoring | Combination | ByReader
    protocol_digest: str
    data: dict[str, str]
    """Digest of the photographs and masks of each split that trained, selected or was scored, by `domain/split`; of
    scores by reader also that of the readers' files, by `domain/test/readers`."""
    phantom: bool
    selection: str
    checkpoint: CheckpointName | None
    """None for masks that no network here made: those of another tool, the mean mask, and those of readers."""
    scored: Scored = "holdout"
    probed: bool = False
    """Whether the holdout was scored after each epoch of the run, which changes nothing of it."""
    checkpoint_sha256: str
    """Digest of the checkpoint, of the members' checkpoints, of the other tool's masks, of the mean mask, or of the
    readers' files."""
    members: dict[str, str] = {}
    """Of an ensemble, the SHA-256 of each member's checkpoint, by its seed; empty for a single network."""
    cases_sha256: str = ""
    """Digest of the CSV, by which a file that was cut or edited is told from a whole one."""
    truth_digest: str = ""
    """Digest of the true masks as decoded, whatever files they came from; empty in records of older versions."""
    code: dict[str, str] = {}
    """Digest of the file of each plugin that trained, by its setting, and of the weights that the run started from,
    `encoder_weights` or `start`, as far as the run or the version that scored it has recorded them."""
    unpredicted: tuple[str, ...] = ()
    """Cases that have a true mask but no prediction of the other tool, and are left out."""
    run: RunIdentity
    """Which run the scores are of; of masks from another tool, preset and precision are `unknown`, and of the mean mask
    `none`."""
    versions: dict[str, str]

    @property
    def external(self) -> bool:
        """Whether another tool made the masks."""
        return self.checkpoint is None and not self.column.no_network

    @property
    def column(self) -> Column:
        """The column of a table that the scores belong to."""
        return self.run.column(self.selection)


@dataclass(frozen=True)
class Evaluation:
    """The case records of one checkpoint, or of the mean mask of its source domains.

    Attributes:
        path: the CSV.
        meta: protocol, data digests, selection, run, versions.
        cases: one row per case and structure, columns as `score_case` gives them; of scores by reader one for each of
            READER_FIELDS too. `patient` is among them, as the data names the patient and NaN where that is not known,
            unless no patient is known at all.
        label: a short name that the user gave its operator and recipe, to head their column; empty without one.
        alike: how alike the masks of different cases are, by structure, without one of which fewer than two cases have
            a true mask; None where it is not known, since an earlier version scored them.
    """

    path: Path
    meta: EvaluationMeta
    cases: pd.DataFrame
    label: str = ""
    alike: Mapping[str, Alike] | None = None


def mask_digest(masks: NDArray[np.bool_]) -> str:
    """SHA-256 of masks (2, H, W), of their shape and their pixels, as hexadecimal digits."""
    return hashlib.sha256(f"{masks.shape}".encode() + np.packbits(masks).tobytes()).hexdigest()


def truth_digest(masks: Mapping[str, str]) -> str:
    """16 hexadecimal digits of the true masks of some cases: names and `mask_digest`s."""
    return short_hash(masks, digits=16)


def write_evaluation(path: Path, meta: EvaluationMeta, text: str, alike: Mapping[str, Alike] | None = None) -> None:
    """Write the CSV of case records and, beside it, how alike masks are if it is known, and the JSON of the records."""
    if path.with_suffix(".json").exists():  # a CSV is whole only while its JSON says what it is
        write_text(path.with_suffix(".json"), "")
    write_text(path, text)
    digest = file_digest(path)
    if alike is not None:
        values = {structure: asdict(each) for structure, each in alike.items()}
        write_json(path.with_suffix(_PAIRS), {"cases_sha256": digest, "mean_pairwise_iou": values})
    meta = meta.model_copy(update={"cases_sha256": digest})
    of_ensembles = set() if meta.members else {"members"}
    write_json(path.with_suffix(".json"), meta.model_dump(mode="json", exclude=of_ensembles))


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
        names = dict.fromkeys(("protocol", "domain", "case", "patient", *READER_FIELDS, "structure"), str)
        cases = pd.read_csv(path, dtype=names, keep_default_na=False, na_values=[""])
        metrics = [name for name in METRICS if name in cases]  # a record may be older than a metric
        columns = [name for name in (*SIZES, *FAULTS, *metrics) if not pd.api.types.is_numeric_dtype(cases[name])]
        cases = cases.assign(**{name: pd.to_numeric(cases[name]) for name in columns})
        if fault := _fault(cases, metrics):
            raise RunError(f"{path}: {fault}, which no evaluation writes; evaluate the run again")
        return Evaluation(path, meta, cases, alike=_read_alike(path, meta.cases_sha256))
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise RunError(f"{path}: not a whole evaluation; evaluate the run again") from error


def _read_alike(path: Path, cases_sha256: str) -> dict[str, Alike] | None:
    """How alike the masks are; None where no file beside the case records says it, or it belongs to others."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        content = json.loads(path.with_suffix(_PAIRS).read_text("utf8"))
        if content["cases_sha256"] == cases_sha256:
            return _ALIKE.validate_python(content["mean_pairwise_iou"])
    return None


def _fault(cases: pd.DataFrame, metrics: list[str]) -> str | None:
    """What no evaluation of whole cases can hold, in words; None if there is no such thing."""
    keys = [cases[name] for name in ("domain", "case", *(field for field in READER_FIELDS if field in cases))]
    each = set(zip(*keys, strict=True))
    rows = set(zip(*keys, cases["structure"], strict=True))
    if rows != {(*case, structure) for case in each for structure in STRUCTURES} or not 0 < len(cases) == len(rows):
        return f"{counted(len(cases), 'row')}, not one of {' and '.join(STRUCTURES)} for each case"
    largest = float(np.finfo(np.float64).max)
    most = {**dict.fromkeys([*SIZES, *FAULTS], largest), **{name: _MOST[METRICS[name].unit] for name in metrics}}
    values = cases[list(most)].to_numpy(np.float64).T
    untold = cases[list(TRUTH_SIZES)].isna().all(axis="columns").to_numpy()  # the structure is not annotated
    may_be_nan = np.isin(list(most), metrics)[:, None] | (np.isin(list(most), TRUTH_SIZES)[:, None] & untold)
    undefined = np.isnan(values) & may_be_nan
    wrong = ~undefined & ~((values >= 0) & (values <= np.array([*most.values()])[:, None]))
    for column, row in np.argwhere(wrong)[:1]:
        name = [*most][column]
        return f"a {name} of {cases[name].iloc[row]} in case {cases['case'].iloc[row]}"
    return None


def recover(path: Path, digest: str, count: int, score: Callable[[int], str], *, progress: Progress = SILENT) -> bool:
    """Keep the whole cases of a file that was cut off and score the others; whether the file is now as once written.

    The digest proves the kept rows: if one of them was edited, or would be scored otherwise today, the file is left as
    it is.

    Args:
        path: the evaluation file, one row per case and structure.
        digest: SHA-256 of the file that was written.
        count: number of cases in that file.
        score: given the number of a case, scores it and all later ones; gives their CSV with a header.
        progress: shows what is done.
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
        if meta["format"] == 3:
            meta = _from_format_3(meta)
        if meta["format"] != EVALUATION_FORMAT:
            raise RunError(
                f"{path}: format {meta['format']}, this version reads 3 and {EVALUATION_FORMAT}; evaluate the run again"
            )
        return EvaluationMeta.model_validate(meta)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise RunError(f"{path}: not a whole evaluation; evaluate the run again") from error


def _from_format_3(meta: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a JSON of format 3, whose `run.operator` was `tvconv-lr=0.0003-47b65c81`, as one of format 4.

    The operator is the longest built-in name that fits, or else a plugin's, in whose name there is no dash. The name
    of another tool may have dashes, but it has no recipe.
    """
    run = {"precision": "fp32", "recipe": "", **meta["run"]}
    name = run["operator"]
    if meta["checkpoint"] is not None:
        fitting = [operator for operator in OPERATORS if f"{name}-".startswith(f"{operator}-")]
        run["operator"] = max(fitting, key=len) if fitting else name.partition("-")[0]
        run["recipe"] = name.removeprefix(run["operator"]).removeprefix("-")
    return {**meta, "format": EVALUATION_FORMAT, "run": run}


def _whole_cases(path: Path) -> list[bytes]:
    """The header of an evaluation file and the lines of the cases that have all their rows; [] if there is none."""
    if not path.is_file():
        return []
    with path.open("rb") as file:
        lines = [line for line in file if line.endswith(b"\n")]
    return lines[: len(lines) - (len(lines) - 1) % len(STRUCTURES)]
