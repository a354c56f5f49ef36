"""The patterns of photographs and masks, the files that match them, and the splits that they define.

Every data root is found in this way: `layout.py` writes the patterns of the paper's four domains, `domain_file.py`
those of a YAML file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from fundus_seg.builtins import Split
from fundus_seg.data.coding import BY_DOFE, Annotation
from fundus_seg.data.listing import (
    FOLDER,
    NESTED,
    PHOTOGRAPHS,
    Entry,
    Skipped,
    entries,
    files_below,
    may_be_picture,
    unusable,
)
from fundus_seg.data.names import key, name_of, suffix_of
from fundus_seg.errors import DataError, Problem

if TYPE_CHECKING:
    from fundus_seg.data.patients import Patients

SPLITS: tuple[Split, ...] = ("train", "test")

NAME = "{name}"
ANNOTATOR = "{annotator}"
WILDCARDS = "*?["


@dataclass(frozen=True)
class Case:
    """The files of one case: an eye photograph and its masks.

    Attributes:
        domain: key of the domain.
        split: `train` or `test`.
        name: name of the case, unique within its domain and split.
        image: the photograph.
        masks: for each annotator one coded file, or the two binary files of disc and cup, or that of the disc alone.
        annotation: how these files become the case's two masks.
        patient: whose eye it is, as the data names the patient; None where that is not known.
        readers: where a domain keeps its annotators apart, the name and the mask files of each who drew this case.
    """

    domain: str
    split: Split
    name: str
    image: Path
    masks: tuple[tuple[Path, ...], ...]
    annotation: Annotation
    patient: str | None = None
    readers: tuple[tuple[str, tuple[Path, ...]], ...] = ()

    @property
    def subject(self) -> str:
        """What splits and halves of splits go by: the patient, or the case itself where no patient is known."""
        return self.name if self.patient is None else self.patient

    @property
    def mask(self) -> Path:
        """The first mask file: messages about the case's masks name this one."""
        return self.masks[0][0]


def not_drawn(cases: Sequence[Case]) -> dict[str, list[Case]]:
    """The cases that a reader has not drawn, for each reader who has drawn some of these cases, but not all."""
    readers = dict.fromkeys(reader for case in cases for reader, _ in case.readers)
    lacking = {reader: [case for case in cases if reader not in dict(case.readers)] for reader in readers}
    return {reader: without for reader, without in lacking.items() if without}


@dataclass(frozen=True)
class Pattern:
    """A pattern of file paths below `base`.

    `*`, `?` and `[...]` match within the name of one folder or file, as in a glob; `{name}` matches the name of the
    case. Without `{name}`, the name of the case is the file's name without its suffix. The suffix matches in upper and
    lower case, letters with accents match composed and taken apart, and a folder or file that has brackets in its own
    name matches that name. Hidden files and folders are never matched.
    """

    base: Path
    text: str

    @property
    def folder(self) -> Path:
        """The deepest folder that all matching files share: the pattern up to its first placeholder or wildcard."""
        return self._parts()[0]

    def find(self) -> Found:
        """Find the files that match; nothing is found if the folder is missing or cannot be listed."""
        folder, parts = self._parts()
        found = Found()
        _search(folder, parts, None, found)
        found.files.sort()
        return found

    def path(self, name: str) -> Path:
        """The file that the case `name` is expected to have, with the wildcards of the pattern."""
        return self.base / self.text.replace(NAME, name)

    def why_empty(self) -> Problem:
        """Say why `find` found nothing: the folder is missing, cannot be listed, or holds no such file."""
        folder, parts = self._parts()
        try:
            os.scandir(folder).close()
        except (FileNotFoundError, NotADirectoryError):
            reason = "no such folder"
        except OSError as error:
            reason = f"cannot be listed ({error.strerror})"
        else:
            reason = f"no {'/'.join(parts).replace(NAME, '*')} in it"
        separators = "; write / between folders" if "\\" in self.text else ""
        return Problem(f"{reason}; expected {self.text}{separators}", folder)

    def _parts(self) -> tuple[Path, list[str]]:
        """The folder that all files share, as it is on disk, and the names of the rest of the pattern."""
        folder, parts = self.base, list(Path(self.text).parts)
        while len(parts) > 1 and NAME not in parts[0]:
            part = parts[0]
            if not os.path.lexists(folder / part):
                if set(part) & set(WILDCARDS):
                    break
                part = _as_stored(folder, part)
            folder /= part
            parts.pop(0)
        return folder, parts


@dataclass
class Found:
    """What a pattern finds.

    Attributes:
        files: (name of the case, path) of each file that matches, sorted.
        others: everything else in the folders that the pattern leads to.
        folders: these folders.
    """

    files: list[tuple[str, Path]] = field(default_factory=list)
    others: list[Entry] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)


def _as_stored(folder: Path, part: str) -> str:
    """The name in a folder that is `part` with its accents composed or taken apart; `part` if there is none."""
    if not part.isascii():
        with contextlib.suppress(DataError):
            for entry in entries(folder):
                if key(entry.path.name) == key(part):
                    return entry.path.name
    return part


def _search(folder: Path, parts: Sequence[str], name: str | None, found: Found) -> None:
    """Add to `found` what matches a pattern below a folder.

    Args:
        folder: the folder.
        parts: the rest of the pattern: names of folders, and last the name of a file.
        name: the name of the case, as far as folders above have shown it.
        found: what was found so far.
    """
    try:
        inside = entries(folder)
    except DataError:
        return
    found.folders.append(folder)
    part, *deeper = parts
    matches = _matches(part, name, [key(entry.path.name) for entry in inside if not entry.hidden], file=not deeper)
    for entry in inside:
        match = matches.get(key(entry.path.name))
        if match is None or entry.kind != ("folder" if deeper else "file"):
            found.others.append(entry)
            continue
        known = match.groupdict().get("name", name)
        if deeper:
            _search(entry.path, deeper, known, found)
        else:
            found.files.append((name_of(entry.path) if known is None else known, entry.path))


def _matches(part: str, name: str | None, given: Sequence[str], *, file: bool) -> dict[str, re.Match[str]]:
    """The given names that match one part of a pattern; brackets are taken literally if any name has them so."""
    for literal in (True, False) if "[" in part else (True,):
        expression = regular_expression(part, name, literal=literal, file=file)
        if matches := {each: match for each in given if (match := expression.fullmatch(each))}:
            return matches
    return {}


@dataclass(frozen=True)
class SplitFiles:
    """The patterns of one split.

    Attributes:
        images: its photographs.
        masks: for each annotator whose masks make the truth, one coded mask, or the binary masks of disc and cup.
        annotation: how masks are read.
        readers: the name and the patterns of each annotator, also of those who do not make the truth.
        readers_may_lack: whether a case needs the masks of one of the annotators only, and not of all.
    """

    images: Pattern
    masks: tuple[tuple[Pattern, ...], ...]
    annotation: Annotation = BY_DOFE
    readers: tuple[tuple[str, tuple[Pattern, ...]], ...] = ()
    readers_may_lack: bool = False

    @property
    def mask_patterns(self) -> tuple[Pattern, ...]:
        """The patterns of the masks that make the truth, of all annotators, one after another."""
        return tuple(pattern for of_annotator in self.masks for pattern in of_annotator)

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        """All patterns, those of the photographs first."""
        of_readers = (pattern for _, patterns in self.readers for pattern in patterns)
        return (self.images, *self.mask_patterns, *of_readers)

    def way_out(self, pattern: Pattern) -> str:
        """What a domain file must say so that a case may lack its mask of this pattern; empty where nothing would."""
        if pattern in self._cups:
            return "unannotated-cup: missing"
        return "annotators: {..., missing: allowed}" if len(self.masks) > 1 else ""

    def may_lack(self, pattern: Pattern) -> bool:
        """Whether a case may lack its mask of this pattern: its cup alone, or all that an annotator draws."""
        return self.readers_may_lack or (self.annotation.unannotated_cup == "missing" and pattern in self._cups)

    @property
    def _cups(self) -> list[Pattern]:
        """The patterns of cups that have a file of their own."""
        return [cup for _, *cups in self.masks for cup in cups]


@dataclass(frozen=True)
class DomainFiles:
    """The patterns of one domain.

    Attributes:
        key: short name, as in `--holdout A`.
        name: full name of the centre.
        train: files of the training split.
        test: files of the test split; None: `hashed_split` takes the test cases from the files of `train`.
        patients: what says whose eyes the cases are; None where that is not known.
    """

    key: str
    name: str
    train: SplitFiles
    test: SplitFiles | None = None
    patients: Patients | None = None

    def patient(self, name: str, image: Path) -> str | None:
        """The patient of the case with this name and photograph; None where that is not known."""
        return self.patients.patient(self.key, name, image) if self.patients else None

    def files(self, split: Split) -> SplitFiles:
        """The patterns that hold the files of a split."""
        return self.test if split == "test" and self.test is not None else self.train


def hashed_split(subject: str) -> Split:
    """The split of a case in a domain without splits of its own: about one subject in five is a test case.

    The split depends on `Case.subject` alone, so a new case never moves another one, and the eyes of a patient stay
    together. The hash shares no bits with the one that halves the test splits (`protocol.source_half`).
    """
    return "test" if int.from_bytes(hashlib.sha256(subject.encode()).digest()[1:8]) % 5 == 0 else "train"


def left_over(found: Mapping[Pattern, Found]) -> Iterator[Skipped]:
    """The files that none of some patterns matches, in the folders that these lead to."""
    taken = {path for each in found.values() for _, path in each.files}
    searched = {folder for each in found.values() for folder in each.folders}
    above = {folder for each in searched for folder in (each, *each.parents)}
    bases = {pattern.base for pattern in found}
    others = {entry.path: entry for each in found.values() for entry in each.others}
    for path, entry in sorted(others.items()):
        if path in taken:
            continue
        if entry.kind == "folder":
            if path in above or path.parent in bases or entry.hidden:  # a base may hold anything
                continue
            if suffix_of(path.name) in PHOTOGRAPHS:
                yield Skipped(path, FOLDER)
            for below in files_below(path):
                if below not in taken and suffix_of(below.name) in PHOTOGRAPHS:
                    yield Skipped(below, f"{NESTED} that no pattern names")
        elif reason := unusable(entry):
            yield Skipped(path, reason)
        elif may_be_picture(path.name):
            yield Skipped(path, "matched by no pattern")


@lru_cache(maxsize=4096)
def regular_expression(part: str, name: str | None, *, literal: bool, file: bool) -> re.Pattern[str]:
    """The regular expression of one part of a pattern, with `{name}` as the group `name`.

    Args:
        part: the part.
        name: what `{name}` stands for; None: any text, but the same wherever the part has it.
        literal: whether brackets are taken literally.
        file: whether it is the name of a file, whose suffix matches in upper and lower case.
    """
    kinds = {"*": ".*", "?": "."}
    part = key(part)
    suffix = re.search(r"(\.nii)?\.(\w+|\*)$", part) if file else None
    any_suffix = suffix is not None and suffix[0] == ".*"
    expression = ""
    for token in re.split(r"(\{name\}|\*|\?|\[!?\]?[^]]*\])", part[: suffix.start()] if suffix else part):
        if token == NAME:
            known = None if name is None else re.escape(name)
            expression += known or (
                "(?P=name)" if "(?P<name>" in expression else "(?P<name>.+?)" if any_suffix else "(?P<name>.+)"
            )
        elif token.startswith("[") and token.endswith("]") and not literal:
            expression += _characters(token)
        else:
            expression += kinds.get(token) or re.escape(token)
    if any_suffix:
        expression += r"(?i:\.nii)?\.[^.]*"
    elif suffix:
        expression += f"(?i:{re.escape(suffix[0])})"
    return re.compile(expression, re.DOTALL)


def _characters(token: str) -> str:
    """The regular expression of `[abc]`, `[a-c]` or `[!abc]`; a set that makes no sense stands for itself."""
    inside = token[1:-1].replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]").replace("^", "\\^")
    expression = f"[^{inside[1:]}]" if inside.startswith("!") else f"[{inside}]"
    try:
        re.compile(expression)
    except re.error:
        return re.escape(token)
    return expression
