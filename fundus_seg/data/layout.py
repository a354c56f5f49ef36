"""Open a data root: a folder `Domain1..4/{train,test}/ROIs/{image,mask}/*.png`, the phantom, or a YAML file."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from fundus_seg.cache_folder import CACHE_VARIABLE, cache_folder
from fundus_seg.data.domain_file import DOMAIN_FILE_SUFFIXES, read_domain_file
from fundus_seg.data.files import NAME, SPLITS, Case, DomainFiles, Pattern, Split, SplitFiles
from fundus_seg.data.find import FoundSplit, find_domains
from fundus_seg.data.listing import PHOTOGRAPHS, Skipped, entries, tell
from fundus_seg.data.names import suffix_of
from fundus_seg.data.patients import Patients, unknown_patients
from fundus_seg.errors import DataError, Problems, UsageError, about, unknown_name
from fundus_seg.phantom.make import PHANTOM_MARKER, PHANTOM_VERSION, is_phantom_name, make_phantom
from fundus_seg.progress import SILENT, Progress
from fundus_seg.protocol import DOMAINS, Domain

DATA_VARIABLE = "FUNDUS_SEG_DATA"
DEFAULT_ROOT = Path("data/Fundus")
PATTERN = "Domain1..4/{train,test}/ROIs/{image,mask}/*.png"
DOMAIN_FILE = "domains.yaml"
"""The domain file that opens a folder without Domain1..4: `data prepare` writes one."""
PHANTOM = "phantom"
"""The value of `--data` for the synthetic photographs that come with the package."""
EMBEDDED_PER_DOMAIN = 36
"""Cases in each domain of these photographs."""


@dataclass(frozen=True)
class DataRoot:
    """The photographs and masks of one or more domains, as they lay on disk when the root was opened.

    The phantom is drawn, if it is not there, when the first of its splits is asked for.

    Attributes:
        path: the folder, or the YAML file that describes the domains.
        domains: keys of the domains, in order.
        splits: the cases of each (domain, split) and the problems with its files.
        skipped: the files beside the cases' own that are left out, and why.
        name: what opens the root again: the absolute path, or `phantom`.
        experiment: keys of the domains that the whole experiment has, whether or not this root holds them all.
        phantom: whether any photograph is synthetic; scores on such photographs say nothing about patients.
        patients: by domain, what says whose eyes its cases are; domains of which nothing does are left out.
    """

    path: Path
    domains: tuple[str, ...]
    splits: Mapping[tuple[str, Split], FoundSplit] = field(repr=False)
    skipped: tuple[Skipped, ...] = field(repr=False)
    name: str
    experiment: tuple[str, ...]
    phantom: bool
    patients: Mapping[str, Patients] = field(default_factory=dict, repr=False)

    def split(self, domain: str, split: Split) -> FoundSplit:
        """The cases of one split that have all their files, and the problems with the other files.

        Raises:
            UsageError: the domain is not in this root.
        """
        if domain not in self.domains:
            raise UsageError(unknown_name("domain", domain, self.domains) + f" in {self.path}")
        return self.splits[domain, split]

    def cases(self, domain: str, split: Split) -> tuple[Case, ...]:
        """The cases of one split, sorted by name.

        Raises:
            UsageError: the domain is not in this root.
            DataError: photographs or masks are missing; the error lists all of them.
        """
        found = self.split(domain, split)
        Problems(found.problems).refuse(f"problems with the files of {domain}/{split}")
        return found.cases


def in_phantom(folder: Path) -> bool:
    """Whether a folder lies in a phantom: one with the phantom's marker file in it, or in a folder above."""
    folders = (folder, *Path(os.path.realpath(folder)).parents)
    return any((above / PHANTOM_MARKER).is_file() for above in folders)


def of_phantom(file: Path) -> bool:
    """Whether a file is of the phantom: by its name, which a copy in any folder keeps, or by the folder it lies in."""
    return is_phantom_name(file.name) or in_phantom(file.parent)


def open_root(data: str | Path | None = None, *, least: int = 2, progress: Progress = SILENT) -> DataRoot:
    """Open the data root that `data` names, and find the files of all its domains.

    Args:
        data: a folder, a YAML file that describes domains (`domain_file.py`), or `phantom`. None: the value of
            $FUNDUS_SEG_DATA, or else `data/Fundus`.
        least: the number of domains that the root must hold; training needs two.
        progress: where the drawing of the phantom is shown, and which files are left out.

    Raises:
        DataError: there is no such root, it holds fewer domains than `least`, or the YAML file has a fault; or the file
            says whose eyes the cases of a domain are, but by a pattern or table that fits none of them.
    """
    given = str(data) if data is not None else os.environ.get(DATA_VARIABLE)
    if given == PHANTOM:
        return _phantom(progress)
    if given or DEFAULT_ROOT.is_dir():
        return _open(Path(given or DEFAULT_ROOT), least, progress)
    raise DataError(
        f"no photographs: give their folder with --data ROOT ({PATTERN} below it), or in ${DATA_VARIABLE} "
        f"or ./{DEFAULT_ROOT}, or take the synthetic photographs that come with the package: --data {PHANTOM}"
    )


def _open(root: Path, least: int, progress: Progress) -> DataRoot:
    if (root / DOMAIN_FILE).is_file() and not _classic_domains(root):
        root /= DOMAIN_FILE
    if root.suffix.lower() in DOMAIN_FILE_SUFFIXES:
        layout = read_domain_file(root)
        experiment, wanted = tuple(domain.key for domain in layout), "domains"
    elif root.is_dir():
        layout = _classic_domains(root)
        experiment, wanted = tuple(DOMAINS), PATTERN
    else:
        raise DataError(
            f"no such folder; --data takes a folder with {PATTERN} below it, "
            f"a YAML file that describes your domains, or '{PHANTOM}'",
            root,
        )
    if len(layout) < least:
        held = f"only domain {layout[0].key}" if layout else "no domain"
        own = "" if wanted == "domains" else ", or a YAML file that describes domains of your own (docs/domains.md)"
        raise DataError(f"holds {held}; training needs two or more of {wanted}{own}", root)
    found = find_domains(layout)
    skipped = (*found.skipped, *(_other_domains(root) if root.is_dir() else ()))
    tell(skipped, progress)
    for domain, source in found.patients.items():
        cases = [case for split in SPLITS for case in found.splits[domain, split].cases]
        with about(root):
            warning = unknown_patients(source, domain, cases)
        if warning:
            progress.warn(warning)
    folders = {domain.files(split).images.folder for domain in layout for split in SPLITS}
    images = [case.image for split in found.splits.values() for case in split.cases]
    folders |= {image.parent for image in images}
    return DataRoot(
        path=root,
        domains=tuple(domain.key for domain in layout),
        splits=found.splits,
        skipped=skipped,
        name=str(root.resolve()),
        experiment=experiment,
        phantom=any(is_phantom_name(image.name) for image in images) or any(map(in_phantom, folders)),
        patients=found.patients,
    )


def _classic_domains(root: Path) -> tuple[DomainFiles, ...]:
    return tuple(_classic(root, domain) for domain in DOMAINS.values() if (root / domain.folder).is_dir())


def _classic(root: Path, domain: Domain) -> DomainFiles:
    """The patterns of one of the paper's four domains, in the layout that the released code reads."""

    def pattern(folder: str, name: str) -> Pattern:
        return Pattern(root, f"{folder}/{name}{_suffix_in(root / folder)}")

    train, test = (
        SplitFiles(
            images=pattern(f"{domain.folder}/{split}/ROIs/image", "*"),
            masks=((pattern(f"{domain.folder}/{split}/ROIs/mask", NAME),),),
        )
        for split in SPLITS
    )
    return DomainFiles(domain.key, domain.name, train, test)


def _suffix_in(folder: Path) -> str:
    """The suffix of the pictures in a folder: `.png` if there is any, else the commonest."""
    suffixes: Counter[str] = Counter()
    with contextlib.suppress(DataError):  # told where the files are sought
        visible = (entry.path.name for entry in entries(folder) if entry.kind == "file" and not entry.hidden)
        suffixes.update(suffix for suffix in map(suffix_of, visible) if suffix in PHOTOGRAPHS)
    return ".png" if ".png" in suffixes or not suffixes else suffixes.most_common(1)[0][0]


def _other_domains(root: Path) -> Iterator[Skipped]:
    """The folders of a root that are named like a domain, and are none of the four."""
    known = {domain.folder for domain in DOMAINS.values()}
    for entry in entries(root):
        if entry.kind == "folder" and entry.path.name.lower().startswith("domain") and entry.path.name not in known:
            yield Skipped(entry.path, f"a folder beside {PATTERN}", "describe it in a YAML file (docs/domains.md)")


def _phantom(progress: Progress) -> DataRoot:
    """The root of the phantom in the cache, which is not drawn yet."""
    folder = cache_folder() / f"phantom-v{PHANTOM_VERSION}-{EMBEDDED_PER_DOMAIN}"
    return DataRoot(
        path=folder,
        domains=tuple(DOMAINS),
        splits=_DrawnSplits(folder, progress),
        skipped=(),
        name=PHANTOM,
        experiment=tuple(DOMAINS),
        phantom=True,
    )


class _DrawnSplits(Mapping[tuple[str, Split], FoundSplit]):
    """The splits of the phantom in a folder; when one is asked for and the folder is not there, it is drawn first."""

    def __init__(self, folder: Path, progress: Progress) -> None:
        self._folder = folder
        self._progress = progress

    def __reduce__(self) -> tuple[Any, ...]:
        """For another process, which shows nothing: a terminal cannot be sent there."""
        return type(self), (self._folder, SILENT)

    @cached_property
    def _splits(self) -> Mapping[tuple[str, Split], FoundSplit]:
        if not self._folder.is_dir():
            try:
                with self._progress.task("drawing the phantom", total=len(DOMAINS) * EMBEDDED_PER_DOMAIN) as advance:
                    make_phantom(self._folder, per_domain=EMBEDDED_PER_DOMAIN, on_case=advance)
            except DataError as error:
                if not self._folder.is_dir():  # otherwise another process has drawn the same phantom first
                    raise DataError(f"{error}; {CACHE_VARIABLE} names the folder of the cache") from error
        return find_domains(_classic_domains(self._folder)).splits

    def __getitem__(self, place: tuple[str, Split]) -> FoundSplit:
        return self._splits[place]

    def __iter__(self) -> Iterator[tuple[str, Split]]:
        return iter(self._splits)

    def __len__(self) -> int:
        return len(self._splits)
