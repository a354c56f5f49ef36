"""Find the cases of a data set in a download: match, pair and count its files, and list everything that is wrong."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fundus_seg.datasets.model import DataSet, Details, Files, RawCase, Rules
from fundus_seg.datasets.raw import Raw, RawFile
from fundus_seg.digests import file_digest
from fundus_seg.errors import DataError, Problem, Problems, counted

_MOST_COPIES = 10
_ILLUSTRATION = re.compile(r"(?:.*/)?[^/]*illustrations?[^/]*/.*", re.IGNORECASE)


@dataclass
class FoundCases:
    """What a download holds of a data set.

    Attributes:
        cases: the cases that have all their files, sorted by name.
        lacking: why each of the other cases is left out.
        problems: everything that is wrong, these cases included.
        copies: files with the same bytes as one that is used.
    """

    cases: list[RawCase] = field(default_factory=list)
    lacking: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    copies: list[RawFile] = field(default_factory=list)


def find_cases(dataset: DataSet, rules: Rules, raw: Raw) -> FoundCases:
    """Find the cases of a data set whose files the rules need."""
    return _Search(dataset, rules, raw).cases()


@dataclass(frozen=True)
class _Candidate:
    file: RawFile
    match: re.Match[str]


class _Search:
    def __init__(self, dataset: DataSet, rules: Rules, raw: Raw) -> None:
        self._dataset, self._rules, self._raw = dataset, rules, raw
        self._names = {name.casefold(): name for name in dataset.names}  # the name of each case, by its folded form
        self._found = FoundCases()
        self._excluded = re.compile(rf"(?:.*/)?(?:{dataset.excluded})", re.IGNORECASE) if dataset.excluded else None
        self._unmatched: list[Problem] = []
        self._tables: list[RawFile] = []  # those that were asked for

    def cases(self) -> FoundCases:
        dataset, found = self._dataset, self._found
        photographs = self._one_each(dataset.photographs)
        truths = {
            reader: [self._one_each(files) for files in dataset.drawings[reader].files]
            for reader in dataset.readers(self._rules)
        }
        expected = dataset.names or tuple(photographs)
        absent = [name for name in expected if name not in photographs]
        for name in absent:
            self._lack(name, f"no {dataset.photographs.what}", dataset.photographs)
        for reader, kinds in truths.items():
            for files, those in zip(dataset.drawings[reader].files, kinds, strict=True):
                for name in photographs:
                    if name not in those:
                        self._lack(name, f"no {files.what}", files)
                for name in sorted(those.keys() - photographs.keys() - set(absent)):
                    self._problem(f"a {files.what} without a {dataset.photographs.what}", those[name].file.shown)
        for name, each in photographs.items():
            if dataset.misplaced and (why := dataset.misplaced(name, each.match)):
                self._lack(name, why)
        whole = {
            name: {reader: tuple(those[name].file for those in kinds) for reader, kinds in truths.items()}
            for name in sorted(photographs)
            if name not in found.lacking
        }
        files_of = {
            name: [photographs[name].file, *(file for files in readers.values() for file in files)]
            for name, readers in whole.items()
        }
        details = self._details(files_of)
        for name, readers in whole.items():
            match = photographs[name].match
            known = details.get(name, Details())
            domain, official = self._domain(name), dataset.official(name, match) or known.official
            if self._rules.split == "official" and not official:
                self._lack(name, "the download does not say its split; give --split hash")
                continue
            found.cases.append(RawCase(name, domain, official, photographs[name].file, readers, known))
        self._count(photographs)
        found.problems += self._unmatched
        return found

    def _one_each(self, files: Files) -> dict[str, _Candidate]:
        """The file of each case: the highest revision that matches the earliest pattern."""
        by_name: dict[str, list[_Candidate]] = {}
        for pattern in files.patterns:
            matching: dict[str, list[_Candidate]] = {}
            for candidate in self._matching(pattern):
                matching.setdefault(files.name_of(candidate.match).casefold(), []).append(candidate)
            for folded, candidates in matching.items():
                by_name.setdefault(folded, candidates)
        if not self._names:  # the photographs name the cases, and are sought first
            self._names = {folded: files.name_of(those[0].match) for folded, those in by_name.items()}
        chosen = {}
        for folded, candidates in by_name.items():
            if folded not in self._names:
                for candidate in candidates:
                    self._problem(f"a {files.what} of no case of {self._dataset.name}", candidate.file.shown)
                continue
            newest = max(map(_revision, candidates))
            latest = [each for each in candidates if _revision(each) == newest]
            chosen[self._names[folded]] = self._only(self._names[folded], files, latest)
        return chosen

    def _matching(self, pattern: str) -> Iterable[_Candidate]:
        compiled = re.compile(rf"(?:.*/)?{pattern}", re.IGNORECASE)
        for file in self._raw.files:
            path = file.path
            if _ILLUSTRATION.fullmatch(path) or (self._excluded and self._excluded.fullmatch(path)):
                continue
            if match := compiled.fullmatch(path):
                yield _Candidate(file, match)

    def _only(self, name: str, files: Files, candidates: Sequence[_Candidate]) -> _Candidate:
        """The only file of a case; copies with the same bytes are passed over, and others are a problem."""
        first, *others = candidates
        if others and not self._are_copies(candidates):
            also = ", ".join(each.file.shown for each in others[:2])
            self._lack(name, f"{len(candidates)} different {files.what}s ({first.file.shown}, {also}); leave one")
        else:
            self._found.copies += [each.file for each in others]
        return first

    def _are_copies(self, candidates: Sequence[_Candidate]) -> bool:
        """Whether files have the same bytes; more than `_MOST_COPIES` are not even read."""
        if len(candidates) > _MOST_COPIES:
            return False
        problems = Problems()
        self._raw.fetch([each.file for each in candidates], problems)
        self._unmatched += problems.found
        paths = [path for each in candidates if (path := self._raw.path(each.file))]
        return len(paths) == len(candidates) and len(set(map(file_digest, paths))) == 1

    def _lack(self, name: str, why: str, files: Files | None = None) -> None:
        """Leave a case out, and list it as a problem; `files` says where a missing one is expected."""
        place = f"; expected {files.expected.replace('{name}', name)}" if files else ""
        self._found.problems.append(Problem(f"{why}{place}", f"{self._dataset.name}/{name}"))
        self._found.lacking.setdefault(name, why)

    def _problem(self, text: str, file: str) -> None:
        self._unmatched.append(Problem(text, file))

    def _count(self, photographs: Mapping[str, _Candidate]) -> None:
        """Compare the number of photographs in each part of the download with the published one."""
        numbers = Counter(self._part(name, candidate.match) for name, candidate in photographs.items())
        for part, expected in self._dataset.counts.items():
            if numbers[part] != expected:
                what = counted(numbers[part], self._dataset.photographs.what)
                text = f"{what}, expected {expected} ({self._dataset.photographs.expected})"
                self._found.problems.insert(0, Problem(text, f"{self._dataset.name}/{part}"))

    def _part(self, name: str, match: re.Match[str]) -> str:
        dataset = self._dataset
        split = dataset.official(name, match) or "all"
        folder = next((each.folder for each in dataset.domains if each.key == self._domain(name)), "")
        return f"{folder}/{split}" if folder else split

    def _domain(self, name: str) -> str:
        return self._dataset.domain_of(name) if self._dataset.domain_of else self._dataset.domains[0].key

    def _details(self, files: Mapping[str, Sequence[RawFile]]) -> Mapping[str, Details]:
        """What is known of the cases; a table that cannot be read is a problem."""
        try:
            return self._dataset.details(self._table, files)
        except DataError as error:
            shown = {str(self._raw.path(file)): file.shown for file in self._tables}
            for problem in error.problems:
                self._problem(problem.text, shown.get(str(problem.path), str(problem.path)))
            return {}

    def _table(self, pattern: str) -> Path | None:
        """The first file whose path ends as a pattern says, unpacked; None if there is none."""
        for candidate in self._matching(pattern):
            problems = Problems()
            self._raw.fetch([candidate.file], problems)
            self._unmatched += problems.found
            self._tables.append(candidate.file)
            return self._raw.path(candidate.file)
        return None


def _revision(candidate: _Candidate) -> int:
    return int(candidate.match.groupdict().get("revision") or 0)
