"""Find the photographs and masks of each domain: file patterns, the splits that they define, and the cases in them.

Every data root is found in this way: `layout.py` writes the patterns of the paper's four domains, `domain_file.py`
those of a YAML file.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fundus_seg.data.coding import BY_DOFE, Annotation
from fundus_seg.errors import Problem

Split = Literal["train", "test"]
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
    files = {(domain.key, split): domain.files(split) for domain in domains for split in SPLITS}
    patterns = {pattern for each in files.values() for pattern in (each.images, *each.mask_patterns)}
    found = {pattern: pattern.find() for pattern in patterns}
    photographs = {
        (domain.key, split): [
            (name, path)
            for name, path in found[domain.files(split).images]
            if domain.test is not None or hashed_split(name) == split
        ]
        for domain in domains
        for split in SPLITS
    }
    return {place: _found_split(place, files, found, photographs) for place in files}


_Place = tuple[str, Split]  # key of the domain, split
_Files = list[tuple[str, Path]]  # (name of the case, path), sorted


def _found_split(
    place: _Place,
    files: Mapping[_Place, SplitFiles],
    found: Mapping[Pattern, _Files],
    photographs: Mapping[_Place, _Files],
) -> FoundSplit:
    """The cases of one split, out of what the patterns of all splits have found."""
    domain, split = place
    images, own = files[place].images, photographs[place]
    if not own:
        if not found[images]:
            return FoundSplit((), (images.why_empty(),))
        count = len(found[images])
        return FoundSplit(
            (),
            (
                Problem(
                    f"none of its {count} photographs is for {split} by its name; split them yourself", images.folder
                ),
            ),
        )
    misplaced = _misplaced(photographs, place)
    complete = {name: path for name, path in own if path not in misplaced}
    problems = list(misplaced.values())
    for pattern in files[place].mask_patterns:
        masks = dict(found[pattern])
        if masks:
            problems += _unpaired(place, pattern, masks, files, photographs)
        else:
            problems.append(pattern.why_empty())
        complete = {name: path for name, path in complete.items() if name in masks}
    cases = [
        Case(domain, split, name, path, files[place].mask_files(name), files[place].annotation)
        for name, path in complete.items()
    ]
    return FoundSplit(tuple(cases), tuple(problems))


def _unpaired(
    place: _Place,
    pattern: Pattern,
    masks: Mapping[str, Path],
    files: Mapping[_Place, SplitFiles],
    photographs: Mapping[_Place, _Files],
) -> list[Problem]:
    """The photographs of one split without a mask in `pattern`, then the masks in it without a photograph."""
    images = files[place].images
    unmasked = [
        Problem(f"photograph without a mask; expected {pattern.path(name)}", path)
        for name, path in photographs[place]
        if name not in masks
    ]
    names = {
        name
        for other, own in photographs.items()
        if pattern in files[other].mask_patterns  # splits and domains may keep their masks in one folder
        for name, _ in own
    }
    without_photograph = [
        Problem(f"mask without a photograph; expected {images.base / images.text}", path)
        for name, path in masks.items()
        if name not in names
    ]
    return unmasked + without_photograph


def _misplaced(photographs: Mapping[_Place, _Files], place: _Place) -> dict[Path, Problem]:
    """The photographs of one split that another split has too, or that share their name with another one."""
    domain, split = place
    elsewhere = {path: other for other, own in photographs.items() if other != place for _, path in own}
    counts = Counter(name for name, _ in photographs[place])
    problems = {}
    for name, path in photographs[place]:
        if path in elsewhere:
            other = "/".join(elsewhere[path])
            text = f"a photograph of {domain}/{split} and of {other}; it must belong to one of them only"
            problems[path] = Problem(text, path)
        elif counts[name] > 1:
            text = f"one of {counts[name]} photographs of {domain}/{split} named {name}; rename it"
            problems[path] = Problem(text, path)
    return problems


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
