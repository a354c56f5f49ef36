"""The photographs of one open page: kept in a folder of its own, and in one table."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from fundus_seg.app.measure import Measured, Measurer
from fundus_seg.data.listing import is_dicom
from fundus_seg.data.names import file_name, name_of, stem, suffix_of
from fundus_seg.errors import DataError
from fundus_seg.inference.case_columns import columns
from fundus_seg.inference.output import table_text
from fundus_seg.inference.roi import AUTO, Roi

_NO_FILE = re.compile(r"[/\\\0]")
"""Characters that the name of a file cannot have."""


@dataclass
class Photograph:
    """A photograph of the page.

    Attributes:
        name: its name, as it was given.
        path: its file.
        measured: what was measured of it last; None before.
    """

    name: str
    path: Path
    measured: Measured | None = None


@dataclass
class Session:
    """The photographs of one page.

    Attributes:
        measurer: measures them.
        folder: holds a folder of each; nobody else writes there.
        photographs: in the order in which they came.
    """

    measurer: Measurer
    folder: Path
    photographs: list[Photograph] = field(default_factory=list)
    _numbers: count[int] = field(default_factory=count)

    def place(self, name: str) -> Photograph:
        """A place for a photograph, whose file is then to be written.

        Args:
            name: what its owner calls the file, whatever characters that has.

        Raises:
            DataError: another photograph of the page has the name, which may differ in the suffix.
        """
        plain = _NO_FILE.sub("_", name).strip()
        plain = plain if plain.strip(".") else "photograph"
        made = Photograph(name, self.folder / str(next(self._numbers)) / file_name(stem(plain), suffix_of(plain)))
        if any(name_of(each.path) == name_of(made.path) for each in self.photographs):
            raise DataError("a photograph of this name is here already; rename this one, or remove the other")
        made.path.parent.mkdir(parents=True)
        self.photographs.append(made)
        return made

    def measure(self, photograph: Photograph, roi: Roi = AUTO) -> Measured:
        """Measure a photograph, by another part of it than before if `roi` says so; raises what `Measurer` raises."""
        photograph.measured = self.measurer.measure(photograph.path, roi, called=photograph.name)
        return photograph.measured

    def remove(self, photograph: Photograph) -> None:
        """Forget a photograph and delete its files."""
        self.photographs.remove(photograph)
        shutil.rmtree(photograph.path.parent, ignore_errors=True)

    def close(self) -> None:
        """Forget all photographs and delete their files."""
        self.photographs.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def table(self) -> str:
        """The rows of the photographs that are measured, as `predict` writes `cases.csv`."""
        done = [each for each in self.photographs if each.measured]
        named = columns(scored=False, dicom=any(is_dicom(each.path) for each in done), trusted=self.measurer.trusted)
        return table_text(named, [each.measured.row for each in done if each.measured])
