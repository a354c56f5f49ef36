"""Whose eyes the cases of a domain are: a pattern of their names or paths, a table, or the headers of DICOM files.

Two eyes of one patient resemble each other more than those of two patients, so splits, halves of splits and intervals
go by patient. A case whose patient is not known counts as a patient of its own (`files.Case.subject`).
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from fundus_seg.data.dicom import read_header
from fundus_seg.data.files import NAME, Case, regular_expression
from fundus_seg.data.identifiers import naming
from fundus_seg.data.listing import PHOTOGRAPHS, is_dicom
from fundus_seg.data.names import key, stem, suffix_of
from fundus_seg.errors import DataError, counted

PATIENT, EYE = "{patient}", "{eye}"
MANIFEST = "manifest.csv"
"""The table that `data prepare` writes beside its domains.yaml."""
_DELIMITERS = ",;\t"


@dataclass(frozen=True)
class PatientPattern:
    """A pattern of the names of cases, as `{patient}_{eye}`; with folders, of the ends of their paths: `{patient}/*`.

    `*`, `?` and `[...]` match as in `files.Pattern`, and `{eye}` as `*` does.

    Attributes:
        text: the pattern.
        domain: key of the only domain that it was written for, whose numbers of patients then are its own; empty for a
            pattern of all domains, in which one number is one patient.
    """

    text: str
    domain: str = ""

    @property
    def numbering(self) -> str:
        """Two domains with the same numbering mean the same patient by the same text."""
        return f"{self.domain}:{self.text}"

    def __str__(self) -> str:
        return f"the pattern '{self.text}'"

    def patient(self, domain: str, name: str, image: Path) -> str | None:
        """The patient of a case with this name and photograph; None where the pattern does not match."""
        parts = self.text.replace(PATIENT, NAME).replace(EYE, "*").split("/")
        given = (name,) if len(parts) == 1 else image.parts[-len(parts) :]
        patient: str | None = None
        for place, (part, text) in enumerate(zip(parts, given, strict=False), start=1):
            expression = regular_expression(part, patient, literal=False, file=1 < place == len(parts))
            match = expression.fullmatch(key(text))
            if match is None or len(given) < len(parts):
                return None
            patient = match.groupdict().get("name", patient)
        return patient


@dataclass(frozen=True)
class PatientTable:
    """A table with a row for each case.

    Attributes:
        path: the CSV file.
        patients: the patient of each (domain, case); the domain is empty where the table has no column of domains.
        of: name of the public set whose numbers of patients these are; empty for a table with one numbering.
    """

    path: Path
    patients: Mapping[tuple[str, str], str] = field(repr=False)
    of: str = ""

    @property
    def numbering(self) -> str:
        """Two domains with the same numbering mean the same patient by the same text."""
        return f"{self.path}:{self.of}"

    def __str__(self) -> str:
        return str(self.path)

    def patient(self, domain: str, name: str, image: Path) -> str | None:
        """The patient of a case; None where no row names the case, or its row names no patient."""
        return self.patients.get((domain, name)) or self.patients.get(("", name))


@dataclass(frozen=True)
class PatientHeaders:
    """The headers of the DICOM photographs of a domain, whose identifiers of patients are hashed (`identifiers`).

    Attributes:
        domain: key of the domain: hospitals number their patients alike, and few files name the issuer of a number.
    """

    domain: str
    _known: dict[Path, str | None] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def numbering(self) -> str:
        """Two domains with the same numbering mean the same patient by the same text."""
        return f"{self.domain}:DICOM"

    def __str__(self) -> str:
        return "the headers of its DICOM files"

    def patient(self, domain: str, name: str, image: Path) -> str | None:
        """The patient of a case; None where its photograph is no DICOM file, or names no patient."""
        if image not in self._known:
            self._known[image] = _in_header(image) if is_dicom(image) else None
        return self._known[image]


def _in_header(image: Path) -> str | None:
    try:
        patient = read_header(image).patient
    except DataError:  # told where the photograph is read
        return None
    return naming(keep=False).name(patient) or None


def headers_of(domain: str, photographs: Sequence[tuple[str, Path]]) -> PatientHeaders | None:
    """What the headers of a domain's photographs say of patients; None if they do not name two patients at least.

    Files of which all have the same identifier were made anonymous: they do not say that all eyes are of one patient.
    """
    headers = PatientHeaders(domain)
    named = {headers.patient(domain, name, image) for name, image in photographs} - {None}
    return headers if len(named) > 1 else None


Patients = PatientPattern | PatientTable | PatientHeaders


def read_table(path: Path, case: str = "case", patient: str = "patient", domain: str = "") -> PatientTable:
    """Read a CSV file, with commas, semicolons or tabs between its columns.

    Args:
        path: the file, in UTF-8.
        case: heading of the column of cases: their names, or file names or paths of their photographs.
        patient: heading of the column of patients; an empty field stands for one that is not known.
        domain: heading of a column with the keys of domains; empty for a table without one.

    Raises:
        DataError: the file cannot be read, lacks a column, or has two patients for one case.
    """
    columns = [key(heading) for heading in (case, patient, domain) if heading]
    rows = _rows(path, columns)
    if rows is None:
        text = f"its first line lacks a column of {', '.join(columns)}, with commas, semicolons or tabs between them"
        raise DataError(text, path)
    return _table(path, [(line, row.get(domain, ""), row[columns[0]], row[columns[1]]) for line, row in rows])


def manifest_beside(file: Path) -> dict[str, PatientTable]:
    """What a manifest.csv of `data prepare` beside a YAML file says of patients, by domain.

    Its columns `domain`, `name` (or `case`), `patient` and `set` are read; a set is the public data set that numbers
    the patients. Nothing comes of a file without the first three, nor of a domain without a patient.

    Raises:
        DataError: the file cannot be read, or has two patients for one case.
    """
    path = file.parent / MANIFEST
    by_set: dict[tuple[str, str], list[_Row]] = {}
    for line, row in (_rows(path, ["domain", "patient"]) if path.is_file() else None) or ():
        name, domain = row.get("name") or row.get("case") or "", row["domain"]
        if name and row["patient"]:
            by_set.setdefault((domain, row.get("set", "")), []).append((line, domain, name, row["patient"]))
    return {domain: _table(path, rows, of) for (domain, of), rows in by_set.items()}


_Row = tuple[int, str, str, str]
"""Number of the line, domain, case and patient."""


def _table(path: Path, rows: Iterable[_Row], of: str = "") -> PatientTable:
    """A table of rows; a file's name or path becomes the name of its case.

    Raises:
        DataError: a case has two patients.
    """
    patients: dict[tuple[str, str], str] = {}
    for line, domain, shown, patient in rows:
        name = re.split(r"[/\\]", shown)[-1]
        name = stem(name) if suffix_of(name) in PHOTOGRAPHS else name
        known = patients.setdefault((domain, name), patient) if name and patient else patient
        if known != patient:
            hint = "" if domain else ", or name the column of domains with `domain:` if these share names of cases"
            raise DataError(f"{name} has two patients, {known} and {patient}; leave one{hint}", path, line)
    return PatientTable(path, patients, of)


def _rows(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]] | None:
    """The rows by their headings, each with the number of its line; None if one of the columns is not there.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a text file in UTF-8"
        raise DataError(f"cannot be read ({reason}); give a CSV table of cases and patients in UTF-8", path) from error
    for delimiter in _DELIMITERS:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        try:
            header = [key(each.strip()) for each in next(reader, [])]
            if {*columns} <= {*header}:
                cells = ((reader.line_num, [key(each.strip()) for each in row]) for row in reader)
                return [(line, dict.fromkeys(header, "") | dict(zip(header, row, strict=False))) for line, row in cells]
        except csv.Error as error:
            raise DataError(f"not a CSV table ({error}); export it again", path, reader.line_num) from error
    return None


def unknown_patients(patients: Patients, domain: str, cases: Sequence[Case]) -> str:
    """What to warn of where only some cases of a domain have a patient; empty where all of them have.

    Raises:
        DataError: none of them has one.
    """
    unknown = [case.name for case in cases if case.patient is None]
    if cases and len(unknown) == len(cases):
        raise DataError(f"no case of {domain} has a patient by {patients}, as '{unknown[0]}'; mend it, or leave it out")
    if not unknown:
        return ""
    return (
        f"{domain}: {counted(len(unknown), 'case')} of {len(cases)} without a patient by {patients} "
        f"('{unknown[0]}' first); each counts as a patient of its own"
    )


def shared_patients(cases: Iterable[Case], patients: Mapping[str, Patients]) -> Iterator[tuple[Case, Case]]:
    """For each patient with eyes in several splits or domains, an eye of each two of them.

    Args:
        cases: of any domains.
        patients: by domain, what says whose eyes its cases are. Patients are compared within a domain, and between
            domains that have the same numbering.
    """
    places: dict[tuple[str, str], dict[tuple[str, str], Case]] = {}
    for case in cases:
        if case.patient is not None:
            person = patients[case.domain].numbering, case.patient
            places.setdefault(person, {}).setdefault((case.domain, case.split), case)
    for eyes in places.values():
        yield from combinations(eyes.values(), 2)
