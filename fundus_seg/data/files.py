"""Find the photographs and masks of each domain: file patterns, the splits that they define, and the cases in them.

Every data root is found in this way: `layout.py` writes the patterns of the paper's four domains, `domain_file.py`
those of a YAML file.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fundus_seg.builtins import Split
from fundus_seg.data.coding import BY_DOFE, Annotation
from fundus_seg.errors import Problem

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
    case. Without `{name}`, the name of the case is the file's name without its suffix. Hidden files and folders are
    never matched.
    """

    base: Path
    text: str

    @property
    def folder(self) -> Path:
        """The deepest folder that all matching files share: the pattern up to its first placeholder or wildcard."""
        return self._parts()[0]

    def find(self) -> list[tuple[str, Path]]:
        """(name, path) of each matching file, sorted; nothing if the folder is missing or cannot be listed."""
        folder, rest = self._parts()
        named = re.compile(_regular_expression(rest))
        found = []
        for path in folder.glob(rest.replace(NAME, "*")):
            inside = path.relative_to(folder)
            match = named.fullmatch(inside.as_posix())
            hidden = any(part.startswith(".") for part in inside.parts)
            if match and not hidden and not path.is_dir():
                found.append((match["name"] if NAME in rest else _stem(path), path))
        return sorted(found)

    def path(self, name: str) -> Path:
        """The file of the case `name`; the pattern must have no wildcards."""
        return self.base / self.text.replace(NAME, name)

    def why_empty(self) -> Problem:
        """Say why `find` found nothing: the folder is missing, cannot be listed, or holds no such file."""
        folder, rest = self._parts()
        try:
            os.scandir(folder).close()
        except (FileNotFoundError, NotADirectoryError):
            reason = "no such folder"
        except OSError as error:
            reason = f"cannot be listed ({error.strerror})"
        else:
            reason = f"no {rest.replace(NAME, '*')} in it"
        return Problem(f"{reason}; expected {self.text}", folder)

    def _parts(self) -> tuple[Path, str]:
        """The folder that all files share, and the rest of the pattern."""
        parts = Path(self.text).parts
        fixed = next(number for number, part in enumerate(parts) if NAME in part or set(part) & set(WILDCARDS))
        return self.base.joinpath(*parts[:fixed]), "/".join(parts[fixed:])


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

    def mask_files(self, name: str) -> tuple[tuple[Path, ...], ...]:
        """The mask files of one case, for each annotator."""
        return tuple(tuple(pattern.path(name) for pattern in of_annotator) for of_annotator in self.masks)


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


def find_splits(domains: Sequence[DomainFiles]) -> dict[tuple[str, Split], FoundSplit]:
    """Find the cases of every split of every domain, by (domain, split); each pattern is searched once."""
    search = _Search(domains)
    return {place: search.split(place) for place in search.files}


_Place = tuple[str, Split]  # key of the domain, split


class _Search:
    """All files that match the patterns of some domains.

    Attributes:
        files: the patterns of each split.
        found: the files that each pattern matches.
        photographs: the photographs of each split.
    """

    def __init__(self, domains: Sequence[DomainFiles]) -> None:
        self.files: dict[_Place, SplitFiles] = {}
        self.found: dict[Pattern, list[tuple[str, Path]]] = {}
        self.photographs: dict[_Place, list[tuple[str, Path]]] = {}
        for domain in domains:
            for split in SPLITS:
                files = domain.files(split)
                for pattern in (files.images, *files.mask_patterns):
                    if pattern not in self.found:
                        self.found[pattern] = pattern.find()
                self.files[domain.key, split] = files
                self.photographs[domain.key, split] = [
                    (name, path)
                    for name, path in self.found[files.images]
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
            if self.found[pattern]:
                problems += self._unpaired(place, pattern)
            else:
                problems.append(pattern.why_empty())
            masked = {name for name, _ in self.found[pattern]}
            complete = {name: path for name, path in complete.items() if name in masked}
        cases = [
            Case(domain, split, name, path, files.mask_files(name), files.annotation) for name, path in complete.items()
        ]
        return FoundSplit(tuple(cases), tuple(problems))

    def _why_empty(self, place: _Place) -> Problem:
        """Why a split has no photographs."""
        images = self.files[place].images
        count = len(self.found[images])
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
        masked = {name for name, _ in self.found[pattern]}
        photographed = {
            name
            for other, own in self.photographs.items()
            if pattern in self.files[other].mask_patterns  # splits and domains may keep their masks in one folder
            for name, _ in own
        }
        return [
            Problem(f"photograph without a mask; expected {pattern.path(name)}", path)
            for name, path in self.photographs[place]
            if name not in masked
        ] + [
            Problem(f"mask without a photograph; expected {images.base / images.text}", path)
            for name, path in self.found[pattern]
            if name not in photographed
        ]


def _regular_expression(glob: str) -> str:
    """The regular expression of a glob, with `{name}` as the group `name`; each `{name}` must match the same text."""
    kinds = {"*": "[^/]*", "?": "[^/]"}
    expression = ""
    for token in re.split(r"(\{name\}|\*|\?|\[[^]]+\])", glob):
        if token == NAME:
            expression += "(?P=name)" if "(?P<name>" in expression else "(?P<name>[^/]+)"
        elif token.startswith("[") and token.endswith("]"):
            expression += token.replace("[!", "[^", 1)
        else:
            expression += kinds.get(token) or re.escape(token)
    return expression


def _stem(path: Path) -> str:
    """The file's name without its suffix; `.nii.gz` is one suffix."""
    return path.name[: -len(".nii.gz")] if path.name.lower().endswith(".nii.gz") else path.stem
