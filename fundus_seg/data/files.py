"""Find the photographs and masks of each domain: file patterns, the splits that they define, and the cases in them.

Every data root is found in this way: `layout.py` writes the patterns of the paper's four domains, `domain_file.py`
those of a YAML file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

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
        masks: for each annotator one coded file, or the two binary files of disc and cup.
        annotation: how these files become the case's two masks.
    """

    domain: str
    split: Split
    name: str
    image: Path
    masks: tuple[tuple[Path, ...], ...]
    annotation: Annotation

    @property
    def mask(self) -> Path:
        """The first mask file: messages about the case's masks name this one."""
        return self.masks[0][0]


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
        """The file that the case `name` is expected to have; the pattern must have no wildcards."""
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
        return Problem(f"{reason}; expected {self.text}", folder)

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
        expression = _regular_expression(part, name, literal=literal, file=file)
        if matches := {each: match for each in given if (match := expression.fullmatch(each))}:
            return matches
    return {}


@dataclass(frozen=True)
class SplitFiles:
    """The patterns of one split: its photographs, and for each annotator one coded mask or two binary masks."""

    images: Pattern
    masks: tuple[tuple[Pattern, ...], ...]
    annotation: Annotation = BY_DOFE

    @property
    def mask_patterns(self) -> tuple[Pattern, ...]:
        """The mask patterns of all annotators, one after another."""
        return tuple(pattern for of_annotator in self.masks for pattern in of_annotator)


@dataclass(frozen=True)
class DomainFiles:
    """The patterns of one domain.

    Attributes:
        key: short name, as in `--holdout A`.
        name: full name of the centre.
        train: files of the training split.
        test: files of the test split; None: `hashed_split` takes the test cases from the files of `train`.
    """

    key: str
    name: str
    train: SplitFiles
    test: SplitFiles | None = None

    def files(self, split: Split) -> SplitFiles:
        """The patterns that hold the files of a split."""
        return self.test if split == "test" and self.test is not None else self.train


def hashed_split(name: str) -> Split:
    """The split of a case in a domain without splits of its own: about one name in five is a test case.

    The split depends on the name alone, so a new case never moves another one. The hash shares no bits with the one
    that halves the test splits (`protocol.source_half`).
    """
    return "test" if int.from_bytes(hashlib.sha256(name.encode()).digest()[1:8]) % 5 == 0 else "train"


@dataclass(frozen=True)
class FoundSplit:
    """What lies on disk for one split of one domain.

    Attributes:
        cases: the cases that have all their files, sorted by name.
        problems: what is wrong with the files of the other cases.
    """

    cases: tuple[Case, ...]
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class FoundDomains:
    """What lies on disk for some domains.

    Attributes:
        splits: what was found for each (domain, split).
        skipped: the files beside the cases' own that no pattern matches.
    """

    splits: Mapping[tuple[str, Split], FoundSplit]
    skipped: tuple[Skipped, ...]


def find_domains(domains: Sequence[DomainFiles]) -> FoundDomains:
    """Find the cases of every split of every domain; each pattern is searched once."""
    search = _Search(domains)
    return FoundDomains({place: search.split(place) for place in search.files}, tuple(search.skipped()))


_Place = tuple[str, Split]  # key of the domain, split


class _Search:
    """All files that match the patterns of some domains.

    Attributes:
        files: the patterns of each split.
        found: what each pattern finds.
        masks: the file that a mask pattern finds for each name.
        photographs: the photographs of each split.
    """

    def __init__(self, domains: Sequence[DomainFiles]) -> None:
        self.files: dict[_Place, SplitFiles] = {}
        self.found: dict[Pattern, Found] = {}
        self.masks: dict[Pattern, dict[str, Path]] = {}
        self.photographs: dict[_Place, list[tuple[str, Path]]] = {}
        for domain in domains:
            for split in SPLITS:
                files = domain.files(split)
                for pattern in (files.images, *files.mask_patterns):
                    if pattern not in self.found:
                        self.found[pattern] = pattern.find()
                        self.masks[pattern] = dict(reversed(self.found[pattern].files))  # the first of each name
                self.files[domain.key, split] = files
                self.photographs[domain.key, split] = [
                    (name, path)
                    for name, path in self.found[files.images].files
                    if domain.test is not None or hashed_split(name) == split
                ]

    def split(self, place: _Place) -> FoundSplit:
        """The cases and the problems of one split."""
        if not self.photographs[place]:
            return FoundSplit((), (self._why_empty(place),))
        domain, split = place
        files = self.files[place]
        misplaced = self._misplaced(place)
        problems = list(misplaced.values())
        complete = {name: path for name, path in self.photographs[place] if path not in misplaced}
        for pattern in files.mask_patterns:
            problems += self._unpaired(place, pattern) if self.masks[pattern] else [pattern.why_empty()]
            complete = {name: path for name, path in complete.items() if name in self.masks[pattern]}
        cases = [
            Case(domain, split, name, path, self._mask_files(files, name), files.annotation)
            for name, path in complete.items()
        ]
        return FoundSplit(tuple(cases), tuple(problems))

    def _mask_files(self, files: SplitFiles, name: str) -> tuple[tuple[Path, ...], ...]:
        """The mask files of one case, for each annotator."""
        return tuple(tuple(self.masks[pattern][name] for pattern in of_annotator) for of_annotator in files.masks)

    def skipped(self) -> Iterator[Skipped]:
        """The files that no pattern matches, in the folders where files of the patterns lie."""
        taken = {path for found in self.found.values() for _, path in found.files}
        searched = {folder for found in self.found.values() for folder in found.folders}
        above = {folder for each in searched for folder in (each, *each.parents)}
        bases = {pattern.base for pattern in self.found}
        others = {entry.path: entry for found in self.found.values() for entry in found.others}
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
                        yield Skipped(below, f"{NESTED} that no pattern of the data names")
            elif reason := unusable(entry):
                yield Skipped(path, reason)
            elif may_be_picture(path.name):
                yield Skipped(path, "matched by no pattern of the data")

    def _why_empty(self, place: _Place) -> Problem:
        """Why a split has no photographs."""
        images = self.files[place].images
        count = len(self.found[images].files)
        if not count:
            return images.why_empty()
        text = f"none of its {count} photographs is for {place[1]} by its name; split them yourself"
        return Problem(text, images.folder)

    def _misplaced(self, place: _Place) -> dict[Path, Problem]:
        """The photographs of one split that another split has too, or that share their name with another one."""
        own, this = self.photographs[place], "/".join(place)
        elsewhere = {path: other for other, them in self.photographs.items() if other != place for _, path in them}
        counts = Counter(name for name, _ in own)
        problems = {}
        for name, path in own:
            if path in elsewhere:
                other = "/".join(elsewhere[path])
                text = f"a photograph of {this} and of {other}; it must belong to one of them only"
                problems[path] = Problem(text, path)
            elif counts[name] > 1:
                problems[path] = Problem(f"one of {counts[name]} photographs of {this} named {name}; rename it", path)
        return problems

    def _unpaired(self, place: _Place, pattern: Pattern) -> list[Problem]:
        """The photographs of one split without a mask in `pattern`, then the masks in it without a photograph."""
        images = self.files[place].images
        masks = self.found[pattern].files
        photographed = {
            name
            for other, own in self.photographs.items()
            if pattern in self.files[other].mask_patterns  # splits and domains may keep their masks in one folder
            for name, _ in own
        }
        own = {name for name, _ in self.photographs[place]}
        return [
            *(
                Problem(f"photograph without a mask; expected {pattern.path(name)}", path)
                for name, path in self.photographs[place]
                if name not in self.masks[pattern]
            ),
            *(
                Problem(f"mask without a photograph; expected {images.base / images.text}", path)
                for name, path in masks
                if name not in photographed
            ),
            *(
                Problem(f"a second mask of {name} beside {self.masks[pattern][name]}; leave one", path)
                for name, path in masks
                if name in own and path != self.masks[pattern][name]
            ),
        ]


@lru_cache(maxsize=4096)
def _regular_expression(part: str, name: str | None, *, literal: bool, file: bool) -> re.Pattern[str]:
    """The regular expression of one part of a pattern, with `{name}` as the group `name`.

    Args:
        part: the part.
        name: what `{name}` stands for; None: any text, but the same wherever the part has it.
        literal: whether brackets are taken literally.
        file: whether it is the name of a file, whose suffix matches in upper and lower case.
    """
    kinds = {"*": ".*", "?": "."}
    part = key(part)
    suffix = re.search(r"(\.nii)?\.\w+$", part) if file else None
    expression = ""
    for token in re.split(r"(\{name\}|\*|\?|\[!?\]?[^]]*\])", part[: suffix.start()] if suffix else part):
        if token == NAME:
            known = None if name is None else re.escape(name)
            expression += known or ("(?P=name)" if "(?P<name>" in expression else "(?P<name>.+)")
        elif token.startswith("[") and token.endswith("]") and not literal:
            expression += _characters(token)
        else:
            expression += kinds.get(token) or re.escape(token)
    ending = f"(?i:{re.escape(suffix[0])})" if suffix else ""
    return re.compile(expression + ending, re.DOTALL)


def _characters(token: str) -> str:
    """The regular expression of `[abc]`, `[a-c]` or `[!abc]`; a set that makes no sense stands for itself."""
    inside = token[1:-1].replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]").replace("^", "\\^")
    expression = f"[^{inside[1:]}]" if inside.startswith("!") else f"[{inside}]"
    try:
        re.compile(expression)
    except re.error:
        return re.escape(token)
    return expression
