"""What a public data set is: where it comes from, which files it has, and how these become cases."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fundus_seg.builtins import Split
from fundus_seg.data.coding import MERGES
from fundus_seg.datasets.raw import RawFile
from fundus_seg.errors import UsageError, unknown_name
from fundus_seg.protocol import FRAME, Domain

SplitRule = Literal["dofe", "official", "hash"]
SPLIT_RULES: tuple[SplitRule, ...] = get_args(SplitRule)
COMBINED = (*MERGES, "staple")
"""How the masks of several readers become one: by `coding.merged`, or by STAPLE."""
EACH = "all"
"""The choice of readers that keeps the masks of each."""
WHOLE = "none"
"""The crop that leaves the photograph whole."""


@dataclass(frozen=True)
class Rules:
    """The choices that shape the cases; each has a default, which the manifest and the data sheet state.

    Attributes:
        split: whose split is used: `dofe` is the benchmark's, `official` that of the set, `hash` that of the names.
        reader: the reader whose masks are used, or how those of all readers are combined; `all` keeps each reader's.
        agreement: least number of experts who must have drawn a pixel of a soft map; 0 in a set without such maps.
        crop: (width, height) in the photograph's own pixels; None leaves the photograph whole.
        scale_to_disc: the crop's side is this many times the disc's larger diameter, and is resampled to 800 pixels.
        as_is: whether files are copied as they are, since the download is cropped already.
    """

    split: SplitRule
    reader: str
    agreement: int
    crop: tuple[int, int] | None
    scale_to_disc: float | None
    as_is: bool

    def __str__(self) -> str:
        if self.as_is:
            crop = "that of the download"
        elif self.scale_to_disc is not None:
            crop = f"{self.scale_to_disc:g} times the disc's larger diameter, resampled to {FRAME}x{FRAME} pixels"
        else:
            crop = f"{self.crop[0]}x{self.crop[1]} pixels of the photograph" if self.crop else "none, whole photographs"
        agreement = f"; agreement: {self.agreement} or more experts" if self.agreement else ""
        return f"split: {self.split}; reader: {self.reader}{agreement}; crop: {crop}"


@dataclass(frozen=True)
class Files:
    """Files of one kind, of which each case has one.

    Attributes:
        what: what such a file is, in the singular: `photograph`, `disc mask`.
        expected: where the file of a case is expected, with `{name}`, for messages.
        patterns: regular expressions of the end of its path, from a folder's or file's name on, in upper and lower case
            alike. Of a case, the files that match the earliest pattern are taken; of
            those, the ones with the highest number in the group `revision`, where the pattern has one.
        name_of: gives the name of the case, from the match of a pattern.
    """

    what: str
    expected: str
    patterns: tuple[str, ...]
    name_of: Callable[[re.Match[str]], str] = field(default=lambda match: match["name"])


Read = Callable[[Sequence[Path], tuple[int, int], Rules], NDArray[np.bool_]]
"""Reads the truth of a case: its files, the photograph's (height, width) and the rules; gives (2, H, W) bool.

The channels are ("disc", "cup"). It gives (1, H, W), the disc alone, where nobody has annotated the cup.
"""


@dataclass(frozen=True)
class Drawing:
    """The truth of one reader: the files that each case has of it, and the function that reads them."""

    files: tuple[Files, ...]
    read: Read


@dataclass(frozen=True)
class Details:
    """What is known of a case beside its pictures; a text is empty where it is not known.

    Attributes:
        eye: `right` or `left`.
        official: the split, where a table of the download has it.
    """

    patient: str = ""
    eye: str = ""
    diagnosis: str = ""
    official: Split | Literal[""] = ""


@dataclass(frozen=True)
class RawCase:
    """The files of one case in a download.

    Attributes:
        name: name of the case, unique in its set.
        domain: key of its domain.
        official: its split in the download; empty where the download has none.
        photograph: its photograph.
        truths: the files of each reader.
        details: what is known beside.
    """

    name: str
    domain: str
    official: Split | Literal[""]
    photograph: RawFile
    truths: Mapping[str, tuple[RawFile, ...]]
    details: Details = Details()

    @property
    def files(self) -> tuple[RawFile, ...]:
        """All its files, the photograph first."""
        return self.photograph, *(file for files in self.truths.values() for file in files)


ReadDetails = Callable[["Tables", Mapping[str, Sequence[RawFile]]], Mapping[str, Details]]
"""Tells what is known of cases: from tables, and from the files of each case, the photograph first."""
Tables = Callable[[str], "Path | None"]
"""Gives the one file of a download whose path ends as a regular expression says; None if there is none."""


def no_details(find: Tables, cases: Mapping[str, Sequence[RawFile]]) -> Mapping[str, Details]:
    """Nothing is known of any case."""
    return {}


def no_split(name: str, match: re.Match[str]) -> Split | Literal[""]:
    """The download has no split."""
    return ""


@dataclass(frozen=True)
class DataSet:
    """A public data set, as one module of this package declares it.

    Attributes:
        name: what the user calls it.
        domains: the domains that it becomes; most sets are one, whose key is the set's name.
        reference: the paper to cite.
        licence: the terms, as they were found.
        source: where to get it.
        holds: what the download must hold.
        annotators: who drew the masks, and how.
        verified: whether the layout was read in files of a real download; else it was read in programs that load it.
        photographs: its photographs.
        drawings: the truth of each reader. The readers that `combined` names are put together by `--reader majority`,
            unless the download has a truth of that name.
        combined: readers who drew every case on their own; empty where the download has one truth alone.
        reader: the default of `--reader`.
        agreement: the default of `--agreement`, for soft maps of four experts; 0 where there are none.
        split: the default of `--split`.
        splits: the splits that there are.
        counts: the published number of photographs in each part of the download: `train` and `test` of its split, or
            `all`; in a set of several domains, of each domain's folder, as `Domain1/train`.
        names: the names of all its cases, where they are published; an expected file can then be named.
        official: the split of a case in the download, from its name and the match of its photograph's path; that of
            `Details` holds where this gives none.
        dofe: the split of each case in the benchmark's archive, which `--split dofe` takes.
        domain_of: the key of the domain of a case, from its name; None in a set of one domain.
        misplaced: why a photograph does not lie where its set has it, from name and match; empty if it does.
        columns: columns (first, end) of the photograph and its truth that are used: a stereo pair has two views.
        as_is: whether the download is laid out and cropped already, so its files are copied.
        details: reads what else is known of the cases, from the tables of the download or from names.
        excluded: regular expression of paths that are never taken.
        note: what a user must know before using it.
    """

    name: str
    domains: tuple[Domain, ...]
    reference: str
    licence: str
    source: str
    holds: str
    annotators: str
    verified: bool
    photographs: Files
    drawings: Mapping[str, Drawing]
    reader: str
    splits: tuple[SplitRule, ...]
    counts: Mapping[str, int]
    names: tuple[str, ...] = ()
    dofe: Mapping[str, Split] = field(default_factory=dict, repr=False)
    combined: tuple[str, ...] = ()
    agreement: int = 0
    official: Callable[[str, re.Match[str]], Split | Literal[""]] = no_split
    domain_of: Callable[[str], str] | None = None
    misplaced: Callable[[str, re.Match[str]], str] | None = None
    columns: tuple[int, int] | None = None
    as_is: bool = False
    details: ReadDetails = field(default=no_details)
    excluded: str = ""
    note: str = ""

    @property
    def split(self) -> SplitRule:
        """The default of `--split`."""
        return self.splits[0]

    def readers(self, rules: Rules) -> tuple[str, ...]:
        """The readers whose files the rules need."""
        return (rules.reader,) if rules.reader in self.drawings else self.combined

    def rules(
        self,
        *,
        split: str | None = None,
        reader: str | None = None,
        agreement: int | None = None,
        crop: str | None = None,
        scale_to_disc: float | None = None,
    ) -> Rules:
        """The rules, with this set's default for each that is None.

        Raises:
            UsageError: a rule that this set does not have, or a crop that is none.
        """
        if split is not None and split not in self.splits:
            raise UsageError(f"{self.name}: {unknown_name('split', split, self.splits)}")
        readers = tuple(dict.fromkeys((*self.drawings, *((*COMBINED, EACH) if self.combined else ()))))
        if reader is not None and reader not in readers:
            raise UsageError(f"{self.name}: {unknown_name('reader', reader, readers)}")
        if agreement is not None and not self.agreement:
            raise UsageError(f"{self.name} has no soft maps: leave out --agreement")
        if agreement is not None and not 1 <= agreement <= 4:
            raise UsageError(f"--agreement {agreement}: the maps are of four experts, so give 1 to 4")
        if crop is not None and scale_to_disc is not None:
            raise UsageError(f"--scale-to-disc says the crop, which is resampled to {FRAME} pixels: leave out --crop")
        if self.as_is and (crop is not None or scale_to_disc is not None):
            raise UsageError(f"{self.name} is cropped already: leave out --crop and --scale-to-disc")
        if scale_to_disc is not None and not 1 <= scale_to_disc <= 100:
            raise UsageError(f"--scale-to-disc {scale_to_disc:g}: give 1 to 100 times the disc's diameter")
        return Rules(
            split=next(rule for rule in SPLIT_RULES if rule == (split or self.split)),
            reader=reader or self.reader,
            agreement=agreement or self.agreement,
            crop=None if scale_to_disc is not None or self.as_is else read_crop(crop or str(FRAME)),
            scale_to_disc=scale_to_disc,
            as_is=self.as_is,
        )


_LARGEST_CROP = 20_000


def read_crop(text: str) -> tuple[int, int] | None:
    """Read a crop: `800`, `800x600` (width x height), or `none`, which gives None.

    Raises:
        UsageError: the text is no crop.
    """
    if text.lower() == WHOLE:
        return None
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text.lower())
    width, height = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not (1 <= width <= _LARGEST_CROP and 1 <= height <= _LARGEST_CROP):
        raise UsageError(f"--crop {text}: give a side in pixels as 800, WxH as 800x600, or {WHOLE}")
    return width, height
