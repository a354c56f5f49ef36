"""Look at an unknown folder: which pictures are photographs, which are masks, and which belong together.

A picture is a mask if a few colours cover nearly all of it. A mask belongs to the photograph whose name its own name or
that of a folder above it holds, whole words of it: `Disc_Cup_Masks/g0001.bmp` to `g0001.jpg`, and
`SoftMap/eye_002_ODsegSoftmap.png` to `eye_002.png`. Of several such names the longest counts, and of several
photographs of that name the one whose folders have most words in common with the mask's. With the name taken out, the
paths of pictures that were exported together are one pattern.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from fundus_seg.cores import map_on_cores
from fundus_seg.data.files import NAME
from fundus_seg.data.io import read_image
from fundus_seg.data.listing import PHOTOGRAPHS, files_below, is_dicom, may_be_picture
from fundus_seg.data.names import case_hint, key, stem, suffix_of
from fundus_seg.errors import DataError, Problem
from fundus_seg.progress import SILENT, Progress

_FLAT, _FEW_COLOURS, _MOST_SEEN = 0.75, 4, 300  # share of a mask that its four commonest colours cover; pixels a side
_SAMPLE = 3  # pictures of each kind that are looked at
_FOREIGN = ("__macosx", "thumbs.db")
_OUTLINES = (".txt", ".mat", ".json", ".xml", ".csv")
_IMAGE_WORDS = r"(?:images?|imgs?|photos?|photographs?|fundus|originals?|cfp|0000)"
_AFFIX = re.compile(rf"(?i)^(?P<before>{_IMAGE_WORDS}[_\W]+)?(?P<core>.+?)(?P<behind>[_\W]+{_IMAGE_WORDS})?$")
_WORDS = re.compile(r"[^\W\d_]+|\d+|[\W_]+")
_KINDS = re.compile(r"(?i)mask|seg|label|soft|dis[ck]|cup|gt|od|oc|image|img|photo")


@dataclass
class Pictures:
    """The pictures that one pattern finds.

    Attributes:
        pattern: their path below the folder, with `{name}` for the name of the case.
        files: the files, by the name of the case.
    """

    pattern: str
    files: dict[str, Path] = field(default_factory=dict)

    @property
    def folders(self) -> tuple[str, ...]:
        """The names of the folders that the pattern leads through."""
        return PurePosixPath(self.pattern).parts[:-1]


@dataclass
class Group(Pictures):
    """The photographs of one pattern, and the masks of some of them.

    Attributes:
        masks: the masks of these photographs, by their pattern; each by the names of the photographs.
    """

    masks: dict[str, Pictures] = field(default_factory=dict)


@dataclass(frozen=True)
class Survey:
    """What lies in a folder.

    Attributes:
        folder: the folder.
        groups: photographs that have masks, a group for each pattern.
        photographs: photographs of whose pattern none has a mask.
        masks: masks without a photograph.
        outlines: texts and tables that have the names of photographs, as outlines of discs and cups have.
        unreadable: pictures that cannot be read, and why.
        others: files that may be pictures, and have no suffix of one that can be read.
        hint: what would make masks belong to photographs, in words; may be empty.
    """

    folder: Path
    groups: tuple[Group, ...]
    photographs: tuple[Path, ...]
    masks: tuple[Path, ...]
    outlines: tuple[Path, ...]
    unreadable: tuple[Problem, ...]
    others: tuple[Path, ...]
    hint: str


def survey(folder: Path, *, progress: Progress = SILENT) -> Survey:
    """Look at all files in a folder and in its subfolders; a few pictures of each kind are read.

    Raises:
        DataError: there is no such folder.
    """
    if not folder.is_dir():
        raise DataError("no such folder; give the folder that holds photographs and masks", folder)
    files = [path for path in files_below(folder) if not _is_foreign(path.relative_to(folder))]
    pictures = [path for path in files if suffix_of(path.name) in PHOTOGRAPHS or _is_picture(path)]
    others = sorted(set(files) - set(pictures))
    drawn, unreadable = _drawn(folder, pictures, progress)
    photographs = [path for path in pictures if drawn.get(path) is False]
    masks = [path for path in pictures if drawn.get(path)]
    names = _Names(folder, photographs)
    groups = {pattern.pattern: pattern for pattern in names.groups()}
    alone = []
    for path in masks:
        found = names.photograph_of(path)
        if found is None:
            alone.append(path)
            continue
        group, name, pattern = found
        group.masks.setdefault(pattern, Pictures(pattern)).files.setdefault(name, path)
    paired = {path for group in groups.values() if group.masks for path in group.files.values()}
    texts = [path for path in files if suffix_of(path.name) in _OUTLINES]
    return Survey(
        folder,
        tuple(group for group in groups.values() if group.masks),
        tuple(path for path in photographs if path not in paired),
        tuple(alone),
        tuple(path for path in texts if names.photograph_of(path) is not None),
        tuple(unreadable),
        tuple(path for path in others if suffix_of(path.name) not in _OUTLINES and may_be_picture(path.name)),
        case_hint((stem(path.name) for path in alone), (stem(path.name) for path in photographs)),
    )


def _is_foreign(path: Path) -> bool:
    """Whether an archiver or a file manager has left a file."""
    return any(part.lower() in _FOREIGN for part in path.parts)


def _is_picture(path: Path) -> bool:
    return may_be_picture(path.name) and is_dicom(path)


def _drawn(folder: Path, pictures: Sequence[Path], progress: Progress) -> tuple[dict[Path, bool], list[Problem]]:
    """Whether each picture is a mask, by a few of those that are named alike; and what cannot be read."""
    alike: dict[tuple[str, str, tuple[str, ...]], list[Path]] = {}
    for path in pictures:
        where = re.sub(r"\d+", "#", str(path.parent.relative_to(folder)))
        words = tuple(sorted({word.lower() for word in _KINDS.findall(stem(path.name))}))
        alike.setdefault((where, suffix_of(path.name), words), []).append(path)
    samples = {kind: _spread(paths, _SAMPLE) for kind, paths in alike.items()}
    sampled = [path for paths in samples.values() for path in paths]
    seen = dict(
        zip(
            sampled,
            map_on_cores(_is_drawn, sampled, description=f"looking at {folder}", progress=progress),
            strict=True,
        )
    )
    kinds: dict[Path, bool] = {}
    problems = []
    for kind, paths in alike.items():
        votes = [vote for path in samples[kind] if isinstance(vote := seen[path], bool)]
        problems += [
            Problem(str(vote.problems[0].text), path)
            for path in samples[kind]
            if isinstance(vote := seen[path], DataError)
        ]
        if votes:
            kinds |= dict.fromkeys(paths, 2 * sum(votes) > len(votes))
    return kinds, problems


def _is_drawn(path: Path) -> bool | DataError:
    """Whether a picture is a mask; the error where it cannot be read."""
    if is_dicom(path):
        return False
    try:
        pixels = read_image(path)
    except DataError as error:
        return error
    return is_flat(pixels)


def is_flat(pixels: NDArray[np.uint8]) -> bool:
    """Whether four colours cover three quarters of a picture (H, W, 3) or more, as in masks, smoothed ones too."""
    rows, columns = (max(1, length // _MOST_SEEN) for length in pixels.shape[:2])
    few = pixels[::rows, ::columns].astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    counts = np.sort(np.unique(few, return_counts=True)[1])
    return bool(counts[-_FEW_COLOURS:].sum() >= _FLAT * few.size)


def _spread(paths: Sequence[Path], most: int) -> list[Path]:
    """At most so many of the files, spread evenly over them."""
    return [paths[len(paths) * number // most] for number in range(most)] if len(paths) > most else list(paths)


@dataclass(frozen=True)
class _Photograph:
    """A photograph that a name stands for, the pattern that it has with that name taken out, and its folders' words."""

    path: Path
    pattern: str
    words: frozenset[str]


class _Names:
    """The names of photographs, and what of other names they are found in."""

    def __init__(self, folder: Path, photographs: Sequence[Path]) -> None:
        self._folder = folder
        self._named: dict[str, list[_Photograph]] = {}
        self._groups: dict[str, Group] = {}
        inside = Counter(path.parent for path in photographs)
        siblings = Counter((key(stem(path.name)), path.parent.parent) for path in photographs)
        for path in photographs:
            name = key(stem(path.name))
            if siblings[name, path.parent.parent] > 1 and inside[path.parent] == 1 and path.parent != folder:
                self._add(path.parent.name, path, "")
                continue
            self._add(name, path, name)
            match = _AFFIX.match(name)
            if match and match["core"] != name:
                self._add(match["core"], path, name)

    def _add(self, name: str, path: Path, whole: str) -> None:
        """Let a name stand for a photograph; `whole` is the stem that holds it, empty if its folder does."""
        relative = path.relative_to(self._folder)
        parts = [literal(part) for part in relative.parts]
        if whole:
            before, behind = whole.split(name, 1) if name != whole else ("", "")
            parts[-1] = f"{literal(before)}{NAME}{literal(behind)}{suffix_of(path.name)}"
        else:
            parts[-2], parts[-1] = NAME, literal(stem(path.name)) + suffix_of(path.name)
        self._named.setdefault(key(name), []).append(_Photograph(path, "/".join(parts), _words(relative.parts[:-1])))

    def groups(self) -> list[Group]:
        """A group for each pattern, without masks; a photograph of several names is in that of each."""
        for name, found in self._named.items():
            for each in found:
                self._groups.setdefault(each.pattern, Group(each.pattern)).files[name] = each.path
        return list(self._groups.values())

    def photograph_of(self, path: Path) -> tuple[Group, str, str] | None:
        """The group and the name of the photograph that a file belongs to, and the file's pattern; None without one."""
        relative = path.relative_to(self._folder)
        for name, part in self._names_in(relative):
            found = self._named.get(name)
            if found:
                words = _words(relative.parts[:-1])
                best = max(found, key=lambda each: len(words & each.words))
                return self._groups[best.pattern], name, _without(relative, name, part)
        return None

    def _names_in(self, relative: Path) -> Iterator[tuple[str, int]]:
        """Each run of words in a file's name, the longest first, then the names of its folders; and where."""
        tokens = _WORDS.findall(key(stem(relative.name)))
        spans = sorted(combinations(range(len(tokens) + 1), 2), key=lambda span: -len("".join(tokens[slice(*span)])))
        last = len(relative.parts) - 1
        yield from (("".join(tokens[slice(*span)]), last) for span in spans)
        yield from ((key(part), number) for number, part in reversed(list(enumerate(relative.parts[:-1]))))


def _without(relative: Path, name: str, part: int) -> str:
    """The pattern of a path: `{name}` for a name in one of its parts, and in the folders that have it whole."""
    parts = [key(each) for each in relative.parts]
    whole = re.compile(rf"(?<![^\W_]){re.escape(name)}(?![^\W_])|^{re.escape(name)}$")
    suffix = suffix_of(relative.name)
    named = [NAME if number < len(parts) - 1 and each == name else literal(each) for number, each in enumerate(parts)]
    body = stem(parts[-1])
    if part == len(parts) - 1 or whole.search(body):
        before, behind = (whole.split(body, 1) if whole.search(body) else body.split(name, 1))[:2]
        body = f"{literal(before)}{NAME}{literal(behind)}"
    else:
        body = literal(body)
    return "/".join([*named[:-1], body + suffix])


def literal(text: str) -> str:
    """A text as a pattern has it: `?` for a character that would mean something else there."""
    return re.sub(r"[\[\]{}*?]", "?", key(text))


def _words(parts: Iterable[str]) -> frozenset[str]:
    return frozenset(word.lower() for part in parts for word in re.findall(r"[^\W\d_]+|\d+", part))
