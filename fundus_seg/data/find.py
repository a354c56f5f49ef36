"""Find the cases of each domain: photographs and masks that belong together, and what is wrong with the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from fundus_seg.builtins import Split
from fundus_seg.data.files import SPLITS, Case, DomainFiles, Found, Pattern, SplitFiles, hashed_split, left_over
from fundus_seg.data.listing import Skipped
from fundus_seg.data.patients import Patients, headers_of
from fundus_seg.errors import Problem


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
        patients: by domain, what says whose eyes its cases are; domains of which nothing does are left out.
        skipped: the files beside the cases' own that no pattern matches.
    """

    splits: Mapping[tuple[str, Split], FoundSplit]
    patients: Mapping[str, Patients]
    skipped: tuple[Skipped, ...]


def find_domains(domains: Sequence[DomainFiles]) -> FoundDomains:
    """Find the cases of every split of every domain; each pattern is searched once.

    Where a domain has nothing else that says whose eyes its cases are, the headers of DICOM photographs may.
    """
    search = _Search(domains)
    splits = {place: search.split(place) for place in search.files}
    patients = {key: domain.patients for key, domain in search.domains.items() if domain.patients}
    return FoundDomains(splits, patients, tuple(left_over(search.found)))


_Place = tuple[str, Split]  # key of the domain, split


class _Search:
    """All files that match the patterns of some domains.

    Attributes:
        domains: the domains by their keys.
        files: the patterns of each split.
        found: what each pattern finds.
        masks: the file that a mask pattern finds for each name.
        photographs: the photographs of each split.
    """

    def __init__(self, domains: Sequence[DomainFiles]) -> None:
        self.domains: dict[str, DomainFiles] = {}
        self.files: dict[_Place, SplitFiles] = {}
        self.found: dict[Pattern, Found] = {}
        self.masks: dict[Pattern, dict[str, Path]] = {}
        self.photographs: dict[_Place, list[tuple[str, Path]]] = {}
        for given in domains:
            for split in SPLITS:
                files = self.files[given.key, split] = given.files(split)
                for pattern in files.patterns:
                    if pattern not in self.found:
                        self.found[pattern] = pattern.find()
                        self.masks[pattern] = dict(reversed(self.found[pattern].files))  # the first of each name
            domain = self.domains[given.key] = given if given.patients else self._with_headers(given)
            for split in SPLITS:
                files = self.files[domain.key, split]
                self.photographs[domain.key, split] = [
                    (name, path)
                    for name, path in self.found[files.images].files
                    if domain.test is not None or hashed_split(domain.patient(name, path) or name) == split
                ]

    def _with_headers(self, domain: DomainFiles) -> DomainFiles:
        """A domain with what the headers of its photographs say of patients."""
        patterns = dict.fromkeys(domain.files(split).images for split in SPLITS)
        photographs = [each for pattern in patterns for each in self.found[pattern].files]
        return replace(domain, patients=headers_of(domain.key, photographs))

    def split(self, place: _Place) -> FoundSplit:
        """The cases and the problems of one split."""
        if not self.photographs[place]:
            return FoundSplit((), (self._why_empty(place),))
        domain, split = place
        files, patient = self.files[place], self.domains[domain].patient
        misplaced = self._misplaced(place)
        problems = list(misplaced.values())
        complete = {name: path for name, path in self.photographs[place] if path not in misplaced}
        for pattern in files.mask_patterns:
            problems += self._unpaired(place, pattern) if self.masks[pattern] else [pattern.why_empty()]
            if not files.may_lack(pattern):
                complete = {name: path for name, path in complete.items() if name in self.masks[pattern]}
        problems += self._halves(files, complete) if files.readers_may_lack else []
        cases = []
        for name, path in complete.items():
            masks = tuple(own for patterns in files.masks if (own := self._mask_files(files, patterns, name)))
            readers = ((reader, self._mask_files(files, patterns, name)) for reader, patterns in files.readers)
            if masks:
                there = tuple((reader, own) for reader, own in readers if own)
                cases.append(Case(domain, split, name, path, masks, files.annotation, patient(name, path), there))
            else:
                problems.append(
                    Problem(f"photograph without any mask; expected {files.mask_patterns[0].path(name)}", path)
                )
        return FoundSplit(tuple(cases), tuple(problems))

    def _mask_files(self, files: SplitFiles, patterns: Sequence[Pattern], name: str) -> tuple[Path, ...]:
        """The mask files that an annotator has of a case; none where one is missing, but for a cup that may be."""
        own = tuple(self.masks[pattern][name] for pattern in patterns if name in self.masks[pattern])
        disc_alone = files.annotation.disc_alone(own) and name in self.masks[patterns[0]]
        return own if disc_alone or len(own) == len(patterns) else ()

    def _halves(self, files: SplitFiles, names: Iterable[str]) -> Iterator[Problem]:
        """The masks whose other half is missing, of annotators who need not have drawn all cases."""
        for patterns, name in product(files.masks, names):
            there = [self.masks[pattern][name] for pattern in patterns if name in self.masks[pattern]]
            if there and not self._mask_files(files, patterns, name):
                missing = next(pattern for pattern in patterns if name not in self.masks[pattern])
                text = f"a mask without its other half; expected {missing.path(name)}{_way_out(files, missing)}"
                yield Problem(text, there[0])

    def _why_empty(self, place: _Place) -> Problem:
        """Why a split has no photographs."""
        images = self.files[place].images
        count = len(self.found[images].files)
        if not count:
            return images.why_empty()
        by = "patient" if self.domains[place[0]].patients else "name"
        text = f"none of its {count} photographs is for {place[1]} by its {by}; split them yourself"
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
        files = self.files[place]
        images = files.images
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
                Problem(f"photograph without a mask; expected {pattern.path(name)}{_way_out(files, pattern)}", path)
                for name, path in self.photographs[place]
                if name not in self.masks[pattern] and not files.may_lack(pattern)
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


def _way_out(files: SplitFiles, pattern: Pattern) -> str:
    """What to do about a mask that nobody has drawn."""
    key = files.way_out(pattern)
    return f"; if nobody has drawn it, write `{key}` in the domain" if key else ""
