"""The photographs of one open page: kept in a folder of its own, and in one table."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from fundus_seg.app.measure import Measured, Measurer
from fundus_seg.data.listing import PHOTOGRAPHS, is_dicom
from fundus_seg.data.names import file_name, name_of, stem, suffix_of
from fundus_seg.errors import DataError, FundusSegError, one_line
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
        problem: why it could not be measured; empty if it could, or was not tried yet.
    """

    name: str
    path: Path
    measured: Measured | None = None
    problem: str = ""

    def delete(self) -> None:
        """Delete its files."""
        shutil.rmtree(self.path.parent, ignore_errors=True)


@dataclass
class Session:
    """The photographs of one page.

    Attributes:
        measurer: measures photographs.
        folder: holds a folder for each photograph; nobody else writes there.
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
        known = suffix_of(plain) in PHOTOGRAPHS  # what else follows a dot is cut where the whole name is too long
        file = file_name(stem(plain), suffix_of(plain)) if known else file_name(plain, "")
        made = Photograph(name, self.folder / str(next(self._numbers)) / file)
        if any(name_of(each.path) == name_of(made.path) for each in self.photographs):
            raise DataError("a photograph of this name is here already; rename this one, or remove the other")
        made.path.parent.mkdir(parents=True)
        self.photographs.append(made)
        return made

    def measure(self, photograph: Photograph, roi: Roi = AUTO) -> None:
        """Measure the part of a photograph that `roi` names, unless the photograph was removed in the meantime."""
        if photograph not in self.photographs:
            return
        try:
            photograph.measured = self.measurer.measure(photograph.path, roi, called=photograph.name)
            photograph.problem = ""
        except FundusSegError as error:
            photograph.problem = one_line(error)

    def remove(self, photograph: Photograph) -> None:
        """Forget a photograph; its files stay until `Photograph.delete`, since it may be measured at this moment."""
        self.photographs = [each for each in self.photographs if each is not photograph]

    def delete(self) -> None:
        """Delete the files of all photographs."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def table(self) -> str:
        """The rows of the photographs that are measured, as `predict` writes `cases.csv`."""
        done = [each for each in self.photographs if each.measured]
        named = columns(scored=False, dicom=any(is_dicom(each.path) for each in done), trusted=self.measurer.trusted)
        return table_text(named, [each.measured.row for each in done if each.measured])
