"""Which files are the photographs and masks of a domain: patterns, the splits that they make, and the cases in them.

One mechanism for every data root; `layout.py` fills it with the four domains of the paper, `domain_file.py` with those
that a YAML file describes.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fundus_seg.builtins import Split
from fundus_seg.data.coding import BY_DOFE, Annotation

SPLITS: tuple[Split, ...] = ("train", "test")

NAME = "{name}"
ANNOTATOR = "{annotator}"
WILDCARDS = "*?["


@dataclass(frozen=True)
class Case:
    """One eye photograph and its masks, as files.

    Attributes:
        domain: key of its domain.
        split: `train` or `test`.
        name: unique within domain and split.
        image: the photograph.
        masks: for each annotator one coded file, or the two binary files of disc and cup.
        annotation: how those become the case's two masks.
    """

    domain: str
    split: Split
    name: str
    image: Path
    masks: tuple[tuple[Path, ...], ...]
    annotation: Annotation

    @property
    def mask(self) -> Path:
        """The first mask file, which names the case's truth in messages."""
        return self.masks[0][0]


@dataclass(frozen=True)
class Pattern:
    """Files below `base`: `*`, `?` and `[...]` stand for parts of one folder's or file's name, `{name}` for the case's.

    Without `{name}`, a case has the name of its file, less the suffix. Hidden files and folders are never meant.
    """

    base: Path
    text: str

    @property
    def folder(self) -> Path:
        """The last folder before the first name that varies."""
        return self._parts()[0]

    def find(self) -> list[tuple[str, Path]]:
        """(name, path) of every file, sorted; empty too where the folder is missing or cannot be listed."""
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
        """The file of one case, for a pattern without wildcards."""
        return self.base / self.text.replace(NAME, name)

    def nothing(self) -> str:
        """The line that says why `find` found nothing."""
        folder, rest = self._parts()
        try:
            os.scandir(folder).close()
        except (FileNotFoundError, NotADirectoryError):
            reason = "no such folder"
        except OSError as error:
            reason = f"cannot be listed ({error.strerror})"
        else:
            reason = f"no {rest.replace(NAME, '*')} in it"
        return f"{folder}: {reason}; expected {self.text}"

    def _parts(self) -> tuple[Path, str]:
        parts = Path(self.text).parts
        fixed = next(number for number, part in enumerate(parts) if NAME in part or set(part) & set(WILDCARDS))
        return self.base.joinpath(*parts[:fixed]), "/".join(parts[fixed:])


@dataclass(frozen=True)
class SplitFiles:
    """Photographs, and for each annotator the patterns of one coded mask file or of two binary ones, disc and cup."""

    images: Pattern
    masks: tuple[tuple[Pattern, ...], ...]
    annotation: Annotation = BY_DOFE

    @property
    def mask_patterns(self) -> tuple[Pattern, ...]:
        """The patterns of all annotators' files."""
        return tuple(pattern for of_annotator in self.masks for pattern in of_annotator)

    def mask_files(self, name: str) -> tuple[tuple[Path, ...], ...]:
        """The mask files of one case, for each annotator."""
        return tuple(tuple(pattern.path(name) for pattern in of_annotator) for of_annotator in self.masks)


@dataclass(frozen=True)
class DomainFiles:
    """The files of one domain. `test` None: a fifth of the cases of `train` are the test split, by their names."""

    key: str
    name: str
    train: SplitFiles
    test: SplitFiles | None = None

    def files(self, split: Split) -> SplitFiles:
        """Where the files of a split lie."""
        return self.test if split == "test" and self.test is not None else self.train

    def photographs(self, split: Split) -> list[tuple[str, Path]]:
        """(name, path) of each photograph of a split, sorted."""
        found = self.files(split).images.find()
        return [(name, path) for name, path in found if self.test is not None or hashed_split(name) == split]


def hashed_split(name: str) -> Split:
    """The split of a case in a domain that has none of its own: one name in five is `test`, whatever other cases do.

    It shares no bits with the hash that halves the test splits (`protocol.source_half`).
    """
    return "test" if int.from_bytes(hashlib.sha256(name.encode()).digest()[1:8]) % 5 == 0 else "train"


def survey(domains: Sequence[DomainFiles], key: str, split: Split) -> tuple[list[Case], list[str]]:
    """The cases of one split that have all their files, sorted by name, and a line for each problem with the others."""
    photographs = {(domain.key, part): domain.photographs(part) for domain in domains for part in SPLITS}
    files = next(domain.files(split) for domain in domains if domain.key == key)
    own = photographs[key, split]
    if not own:
        others = len(files.images.find())
        by_hash = (
            f"{files.images.folder}: none of its {others} photographs is for {split} by its name; split them yourself"
        )
        return [], [by_hash if others else files.images.nothing()]
    problems = _misplaced(photographs, key, split)
    whole = {name: path for name, path in own if path not in problems}
    lines = list(problems.values())
    for pattern in files.mask_patterns:
        masks = dict(pattern.find())
        if not masks:
            lines.append(pattern.nothing())
        else:
            lines += [
                f"{path}: photograph without a mask; expected {pattern.path(name)}"
                for name, path in own
                if name not in masks
            ]
            known = {
                name
                for domain in domains
                for part in SPLITS
                if pattern in domain.files(part).mask_patterns  # splits and domains may keep their masks together
                for name, _ in photographs[domain.key, part]
            }
            expected = files.images.base / files.images.text
            lines += [
                f"{path}: mask without a photograph; expected {expected}"
                for name, path in masks.items()
                if name not in known
            ]
        whole = {name: path for name, path in whole.items() if name in masks}
    cases = [Case(key, split, name, path, files.mask_files(name), files.annotation) for name, path in whole.items()]
    return cases, lines


def _misplaced(
    photographs: Mapping[tuple[str, Split], Sequence[tuple[str, Path]]], key: str, split: Split
) -> dict[Path, str]:
    """The photographs of one split that another split or domain has too, or that share a name, and what to do."""
    elsewhere = {path: place for place, found in photographs.items() if place != (key, split) for _, path in found}
    copies = Counter(name for name, _ in photographs[key, split])
    problems = {}
    for name, path in photographs[key, split]:
        if path in elsewhere:
            other = "/".join(elsewhere[path])
            problems[path] = f"{path}: a photograph of {key}/{split} and of {other}; it must be of one alone"
        elif copies[name] > 1:
            problems[path] = f"{path}: one of {copies[name]} photographs of {key}/{split} named {name}; rename it"
    return problems


def _regular_expression(glob: str) -> str:
    """What a glob matches, with the case's name as the group `name`; it may stand twice, the same each time."""
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
    return path.name[: -len(".nii.gz")] if path.name.lower().endswith(".nii.gz") else path.stem
