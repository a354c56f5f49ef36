"""From the download of a public data set to domains that can be trained on."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fundus_seg.builtins import Split
from fundus_seg.cores import core_count, map_ahead
from fundus_seg.data.files import SPLITS, hashed_split
from fundus_seg.data.layout import DOMAIN_FILE
from fundus_seg.data.listing import tell
from fundus_seg.data.patients import MANIFEST
from fundus_seg.datasets import SETS
from fundus_seg.datasets.case import Written, write_case
from fundus_seg.datasets.finding import FoundCases, find_cases
from fundus_seg.datasets.model import DataSet, RawCase, Rules
from fundus_seg.datasets.raw import Raw, name_of_source
from fundus_seg.datasets.sheets import DATASHEET, datasheet_text, manifest_text, write_whole
from fundus_seg.digests import file_digest
from fundus_seg.errors import DataError, Problem, Problems, counted, listing
from fundus_seg.progress import SILENT, Progress

MOST_LISTED = 20
"""Problems that an error lists; the others are counted."""


@dataclass(frozen=True)
class Prepared:
    """What was prepared.

    Attributes:
        domain_file: the file that describes the domains of the whole folder; `--data` takes it, or the folder.
        cases: how many cases each (domain, split) of the set has.
        unchanged: whether the same cases lay there already.
    """

    domain_file: Path
    cases: dict[tuple[str, Split], int]
    unchanged: bool


def prepare(
    dataset: DataSet,
    paths: Sequence[Path],
    out: Path,
    rules: Rules,
    *,
    allow_missing: bool = False,
    force: bool = False,
    progress: Progress = SILENT,
) -> Prepared:
    """Write the cases of a data set into `out`, beside the sets that are there already.

    Args:
        dataset: the set, one of `SETS`.
        paths: what was downloaded: folders, archives, or several of them.
        out: the folder; each set has a folder of its own in it.
        rules: how cases are made (`dataset.rules()` gives the defaults).
        allow_missing: whether cases whose files are missing or cannot be used are left out, and the manifest says so;
            otherwise they are refused.
        force: whether other cases of this set that lie in `out` are replaced.
        progress: where the progress is shown, and what is left out.

    Raises:
        DataError: files are missing, doubled, unmatched or cannot be used, or other cases of this set lie in `out`.
            Nothing is written then.
    """
    mine = [out / name for name in SETS if (out / name / MANIFEST).is_file()]
    _refuse_foreign(out, dataset, mine)
    with _scratch(out) as scratch:
        for folder in ("raw", dataset.name):
            (scratch / folder).mkdir()
        raw = Raw(paths, scratch / "raw", written=mine)
        tell(raw.skipped, progress)
        found = find_cases(dataset, rules, raw)
        if not found.cases:
            raise DataError(_nothing(dataset, found, paths))
        if not allow_missing:
            _refuse(found.problems, dataset)
        written = _write_cases(dataset, rules, raw, found, scratch / dataset.name, progress, allow_missing)
        rows, problems, notes = written
        if all(row.get("lacks") for row in rows):
            raise DataError(f"no case of {dataset.name} can be used ({rows[0]['name']}: {rows[0]['lacks']})")
        sources = [name_of_source(path) for path in paths]
        (scratch / dataset.name / MANIFEST).write_text(manifest_text(rows), "utf8")
        sheet = datasheet_text(dataset, rules, sources, rows, problems, notes)
        (scratch / dataset.name / DATASHEET).write_text(sheet, "utf8")
        unchanged = _put(scratch / dataset.name, out, scratch, force=force)
    places = [(row["domain"], row["split"]) for row in rows if not row.get("lacks")]
    return Prepared(
        write_whole(out, SETS),
        {(domain.key, split): places.count((domain.key, split)) for domain in dataset.domains for split in SPLITS},
        unchanged,
    )


def _refuse_foreign(out: Path, dataset: DataSet, mine: Sequence[Path]) -> None:
    """Refuse a folder in which files would be replaced that `prepare` has not written."""
    if out.exists() and not out.is_dir():
        raise DataError("a file; give the folder to write into", out)
    theirs = [out / dataset.name] if out / dataset.name not in mine else []
    theirs += [] if mine else [out / file for file in (MANIFEST, DATASHEET, DOMAIN_FILE)]
    for path in theirs:
        if os.path.lexists(path):
            raise DataError("not written by `data prepare`, so it is not replaced; give another OUT", path)


@contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """A hidden folder on the same disk as `out`, which is deleted in the end."""
    try:
        (out if out.is_dir() else out.parent).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".prepare.", dir=out if out.is_dir() else out.parent) as scratch:
            yield Path(scratch)
    except OSError as error:
        raise DataError(
            f"cannot be written ({error.strerror or error}); make room, or give another folder", out
        ) from error


def _write_cases(
    dataset: DataSet,
    rules: Rules,
    raw: Raw,
    found: FoundCases,
    folder: Path,
    progress: Progress,
    allow_missing: bool,
) -> tuple[list[dict[str, Any]], list[Problem], list[str]]:
    """Write the cases; give the rows of the manifest, what is wrong, and sentences about what is odd."""
    folders = {domain.key: folder / domain.folder for domain in dataset.domains}
    for below in folders.values():
        for split in SPLITS:
            for kind in ("image", "mask"):
                (below / split / "ROIs" / kind).mkdir(parents=True)
    problems = Problems(found.problems)
    lacking = dict(found.lacking)
    rows: dict[str, dict[str, Any]] = {}
    odd: dict[str, list[str]] = {}

    def work(case: RawCase) -> Written | DataError:
        try:
            return write_case(dataset, rules, raw, case, _split_of(dataset, rules, case), folders[case.domain])
        except DataError as error:
            return error

    cases = _fetched(found.cases, raw, problems, lacking, progress)
    with progress.task(f"preparing {dataset.name}", total=len(cases)) as advance:
        for case, done in zip(cases, map_ahead(work, cases, ahead=2 * core_count()), strict=True):
            advance()
            if isinstance(done, DataError):
                problems.found += done.problems
                lacking[case.name] = done.problems[0].text.partition(";")[0]  # without the way to mend it
                continue
            rows[case.name] = dict(done.row)
            for text in done.odd:
                odd.setdefault(text, []).append(case.name)
    if not allow_missing:
        _refuse(problems.found, dataset)
    for name, why in lacking.items():
        domain = dataset.domain_of(name) if dataset.domain_of else dataset.domains[0].key
        rows[name] = {"set": dataset.name, "domain": domain, "name": name, "lacks": why}
    progress.left_out("case", "with a file missing or not usable", sorted(lacking))
    progress.left_out("file", "with the same bytes as one that is used", [file.shown for file in found.copies])
    notes = []
    for text, names in odd.items():
        what = f"{counted(len(names), 'case')} of {len(rows)} with {text}"
        progress.warn(f"{what}: {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}")
        notes.append(f"{what}: {', '.join(names)}")
    order = {domain.key: place for place, domain in enumerate(dataset.domains)}
    listed = [row for _, row in sorted(rows.items(), key=lambda item: (order[item[1]["domain"]], item[0]))]
    return listed, problems.found, notes


def _fetched(
    cases: Sequence[RawCase], raw: Raw, problems: Problems, lacking: dict[str, str], progress: Progress
) -> list[RawCase]:
    """The cases whose files could be unpacked; the others are added to `lacking`."""
    files = [file for case in cases for file in case.files]
    packed = any(file.size for file in files)
    with progress.task("unpacking", total=len(files)) if packed else nullcontext(lambda: None) as advance:
        raw.fetch(files, problems, advance=advance)
    for case in cases:
        if any(raw.path(file) is None for file in case.files):
            lacking[case.name] = "a file that cannot be unpacked"
    return [case for case in cases if case.name not in lacking]


def _split_of(dataset: DataSet, rules: Rules, case: RawCase) -> Split:
    if rules.split == "hash":
        return hashed_split(case.details.patient or case.name)
    split = dataset.dofe[case.name] if rules.split == "dofe" else case.official
    assert split, f"{dataset.name} has no split {rules.split}"
    return split


def _refuse(problems: Sequence[Problem], dataset: DataSet) -> None:
    """Raise a DataError that lists the problems, if there are any: a line for each, and for `MOST_LISTED` at most."""
    each = tuple(dict.fromkeys(problems))
    if each:
        shown: list[object] = list(each[:MOST_LISTED])
        if len(each) > MOST_LISTED:
            shown.append(f"and {len(each) - MOST_LISTED} more")
        text = listing(each, "")
        if len(each) > 1:
            what = f"problems with the files of {dataset.name}; give --allow-missing to go on without those cases"
            text = "\n".join([f"{len(each)} {what}:", *(f"  {line}" for line in shown)])
        raise DataError(text, problems=each)


def _nothing(dataset: DataSet, found: FoundCases, paths: Sequence[Path]) -> str:
    given = ", ".join(map(str, paths))
    first = f" ({found.problems[-1]})" if found.problems else ""
    return f"{given}: no whole case of {dataset.name} in it{first}; it must hold {dataset.holds}"


def _put(folder: Path, out: Path, scratch: Path, *, force: bool) -> bool:
    """Put the folder of a set into `out`; True if the same files lie there already."""
    target = out / folder.name
    if target.exists():
        if _digests(target) == _digests(folder):
            return True
        if not force:
            raise DataError("other cases of this set lie there; give --force to replace them, or another OUT", target)
        target.rename(scratch / "replaced")
    out.mkdir(exist_ok=True)
    folder.rename(target)
    return False


def _digests(folder: Path) -> dict[str, str]:
    """The digest of each file below a folder."""
    return {
        path.relative_to(folder).as_posix(): file_digest(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }
