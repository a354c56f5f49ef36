"""The folder that `predict` writes: masks, overlays, probabilities, a table with a row a photograph, who made them.

`cases.csv` grows by a row when the photograph's files are in place, so what it lists is whole, whenever the process
ends. `predictions.json` says what made all of it; a second run goes on only if the same would make the rest.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fundus_seg.builtins import MaskFormat, PictureFormat
from fundus_seg.data.io import MASK_SUFFIX
from fundus_seg.data.names import file_name
from fundus_seg.errors import RunError
from fundus_seg.inference.case_columns import BY_NAME
from fundus_seg.protocol import STRUCTURES
from fundus_seg.runs.atomic import append_bytes, write_json, write_text
from fundus_seg.viz.overlay import PICTURE_SUFFIX

RECORD_FORMAT = 1
_RECORD = "predictions.json"
_TEMPERATURES = "temperatures"
"""What the record calls the temperatures of the networks; it says them where probabilities are kept."""


@dataclass(frozen=True)
class Output:
    """Where the files of photographs are written, below the folder `path`.

    Attributes:
        path: the folder.
        form: format of the masks, and of the probabilities.
        overlay: format of the overlays; None: there are none.
        probabilities: whether probabilities are kept.
    """

    path: Path
    form: MaskFormat
    overlay: PictureFormat | None
    probabilities: bool = False

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders that files of photographs may be written to."""
        probabilities = (f"probabilities/{structure}" for structure in STRUCTURES)
        return tuple(self.path / name for name in ("masks", "overlays", *probabilities))

    def mask(self, name: str) -> Path:
        """The mask of a photograph."""
        return self.path / "masks" / file_name(name, MASK_SUFFIX[self.form])

    def probability(self, name: str, structure: str) -> Path:
        """The probability of one structure of a photograph."""
        return self.path / "probabilities" / structure / file_name(name, MASK_SUFFIX[self.form])

    def picture(self, name: str, form: PictureFormat) -> Path:
        """The overlay of a photograph."""
        return self.path / "overlays" / file_name(name, PICTURE_SUFFIX[form])

    def is_whole(self, name: str) -> bool:
        """Whether the files of a photograph are there that its row promises."""
        files = [self.mask(name), *([self.picture(name, self.overlay)] if self.overlay else [])]
        files += [self.probability(name, structure) for structure in STRUCTURES if self.probabilities]
        return all(file.is_file() for file in files)

    def remove(self, name: str) -> None:
        """Remove the files of a photograph."""
        pictures = (self.picture(name, form) for form in PICTURE_SUFFIX)
        for path in (self.mask(name), *pictures, *(self.probability(name, structure) for structure in STRUCTURES)):
            path.unlink(missing_ok=True)

    def refuse_unrecorded(self) -> None:
        """Refuse masks of which no table and no record tells.

        Raises:
            RunError: there are some.
        """
        masks = self.path / "masks"
        if masks.is_dir() and any(masks.iterdir()):
            raise _unrecorded(self.path)


def _unrecorded(folder: Path) -> RunError:
    return RunError(f"{folder}: holds predictions without {_RECORD}, which says what made them; choose another --out")


@dataclass(frozen=True)
class Table:
    """The table and the record in a folder.

    Attributes:
        folder: the folder.
        columns: columns of the table.
        made_by: what makes the predictions, by name: plain values, equal ones give equal predictions.
        temperatures: those of each network, by which probabilities are calibrated; [] without; None where no
            probabilities are kept. Masks are the same with any.
    """

    folder: Path
    columns: Sequence[str]
    made_by: Mapping[str, Any] = field(repr=False)
    temperatures: Sequence[Sequence[float]] | None = None

    @property
    def path(self) -> Path:
        """A row for each photograph."""
        return self.folder / "cases.csv"

    @property
    def record(self) -> Path:
        """What made the predictions."""
        return self.folder / _RECORD

    def rows(self) -> list[dict[str, str]] | None:
        """The rows of the photographs that are done, None without a record; a last line that a kill has cut is none.

        Raises:
            RunError: the folder holds what something else has made, or the table is damaged.
        """
        there = self._recorded()
        if there is None:
            if self.path.exists():
                raise _unrecorded(self.folder)
            return None
        self._refuse_others(there)
        if not self.path.exists():
            return []
        try:
            text = self.path.read_bytes().decode("utf8", "replace")  # a kill may cut a letter in two
        except OSError as error:
            raise RunError(f"{self.path}: cannot be read ({error.strerror}); choose another --out") from error
        whole = _whole_rows(text)
        scores = {each for each in whole[0] if each.startswith("dsc_")} if whole else set()
        if scores ^ {each for each in self.columns if each.startswith("dsc_")}:
            made = "with --truth" if scores else "without --truth"
            raise RunError(f"{self.path}: its predictions were made {made}; do so again, or choose another --out")
        if whole[:1] != [list(self.columns)] or any(len(row) != len(self.columns) for row in whole):
            raise RunError(f"{self.path}: not rows of {', '.join(self.columns)}; choose another --out")
        rows = [dict(zip(self.columns, row, strict=True)) for row in whole[1:]]
        for row in rows:
            if wrong := [name for name, text in row.items() if not BY_NAME[name].holds(text)]:
                raise RunError(f"{self.path}: {wrong[0]} of {row['photograph']} is damaged; choose another --out")
        return rows

    def begin(self, rows: Iterable[Mapping[str, Any]], about: Mapping[str, Any]) -> None:
        """Write the record, and the table with these rows alone.

        Args:
            rows: what stays of the rows that were there.
            about: what else the record is to say.
        """
        made_by = {**self.made_by, **self._of_probabilities(self._recorded() or {})}
        write_json(self.record, {"format": RECORD_FORMAT, "made_by": made_by, **about})
        write_text(self.path, table_text(self.columns, rows))

    def add(self, row: Mapping[str, Any]) -> None:
        """Append the row of a photograph, whose files are in place."""
        append_bytes(self.path, _line(row[name] for name in self.columns).encode("utf8"))

    def _recorded(self) -> dict[str, Any] | None:
        """What has made the predictions that are there; None without a record.

        Raises:
            RunError: the record is damaged, or something else wrote it.
        """
        try:
            record = json.loads(self.record.read_text("utf8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise RunError(f"{self.record}: cannot be read; choose another --out") from error
        there = record.get("made_by") if isinstance(record, dict) else None
        if not isinstance(there, dict):
            raise RunError(f"{self.record}: not written by `fundus-seg predict`; choose another --out")
        return there

    def _of_probabilities(self, there: Mapping[str, Any]) -> dict[str, Any]:
        """What the record says of the probabilities: of those that are kept now, or else of those that are there."""
        if self.temperatures is not None:
            return {_TEMPERATURES: self.temperatures}
        return {name: value for name, value in there.items() if name == _TEMPERATURES}

    def _refuse_others(self, there: Mapping[str, Any]) -> None:
        now = {**self.made_by, **self._of_probabilities(there)}
        if _TEMPERATURES not in there:  # no probabilities are there
            now.pop(_TEMPERATURES, None)
        differing = [
            f"{name} {there.get(name) or 'none'} there, {now.get(name) or 'none'} now"
            for name in {**now, **there}
            if there.get(name) != now.get(name)
        ]
        if differing:
            raise RunError(
                f"{self.folder}: holds other predictions ({'; '.join(differing)}); choose another --out, or delete it"
            )


def escaped(text: object) -> str:
    r"""A text that UTF-8 can hold: a byte of a file name that is not UTF-8 becomes `\xe9`, as in `data.names`."""
    return str(text).encode("utf8", "surrogateescape").decode("utf8", "backslashreplace")


def table_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """A table as CSV: the names of its columns, then a line for each row."""
    return "".join([_line(columns), *(_line(row[name] for name in columns) for row in rows)])


def _line(values: Iterable[Any]) -> str:
    """A line of CSV; a field with a line end of any kind is quoted, NaN is empty."""
    buffer = io.StringIO()
    # csv quotes the characters of its own line end, of which there must be both, or a bare CR would end a line.
    csv.writer(buffer, lineterminator="\r\n").writerow(
        "" if isinstance(value, float) and math.isnan(value) else escaped(value) for value in values
    )
    return buffer.getvalue().removesuffix("\r\n") + "\n"


def _whole_rows(text: str) -> list[list[str]]:
    """The rows of a CSV without a last one that lacks its end."""
    rows: list[list[str]] = []
    try:
        for row in csv.reader(io.StringIO(text, newline=""), strict=True):
            rows.append(row)
    except csv.Error:  # the last field is quoted, and its end is missing
        return rows
    if rows and not text.endswith("\n"):
        rows.pop()
    return rows
