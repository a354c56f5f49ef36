"""Data roots: `Domain1..4/{train,test}/ROIs/{image,mask}/*.png`, the phantom, or what a YAML file describes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from fundus_seg.cache_folder import CACHE_VARIABLE, cache_folder
from fundus_seg.data.domain_file import DOMAIN_FILE_SUFFIXES, read_domain_file
from fundus_seg.data.files import SPLITS, Case, DomainFiles, Pattern, Split, SplitFiles, survey
from fundus_seg.errors import DataError, Problems, UsageError, unknown_name
from fundus_seg.phantom.make import PHANTOM_MARKER, PHANTOM_VERSION, make_phantom
from fundus_seg.progress import SILENT, Progress
from fundus_seg.protocol import DOMAINS, Domain

DATA_VARIABLE = "FUNDUS_SEG_DATA"
DEFAULT_ROOT = Path("data/Fundus")
PATTERN = "Domain1..4/{train,test}/ROIs/{image,mask}/*.png"
PHANTOM = "phantom"
"""What `--data` takes for the embedded synthetic data."""
EMBEDDED_PER_DOMAIN = 36


@dataclass(frozen=True)
class DataRoot:
    """Two or more domains.

    Attributes:
        path: the folder, or the YAML file that describes the domains.
        layout: where their files lie.
        name: what opens the root again: the absolute path, or `phantom`.
        experiment: keys of the domains that the whole experiment has, whether or not this root holds them all.
    """

    path: Path
    layout: tuple[DomainFiles, ...]
    name: str
    experiment: tuple[str, ...]

    @property
    def domains(self) -> tuple[str, ...]:
        """Keys of the domains, in order."""
        return tuple(domain.key for domain in self.layout)

    @property
    def phantom(self) -> bool:
        """Whether synthetic photographs are among them, whose scores say nothing about patients."""
        return any(
            in_phantom(folder)
            for folder in {domain.files(split).images.folder for domain in self.layout for split in SPLITS}
        )

    def cases(self, domain: str, split: Split) -> tuple[Case, ...]:
        """The cases of one split, sorted by name.

        Raises:
            UsageError: the domain is not in this root.
            DataError: folders or files that are missing on one side, all of them listed.
        """
        cases, problems = self.survey(domain, split)
        Problems(problems).refuse(f"problems with the files of {domain}/{split}")
        return cases

    def survey(self, domain: str, split: Split) -> tuple[tuple[Case, ...], list[str]]:
        """The cases of one split that have all their files, and a line for each problem with the others.

        Raises:
            UsageError: the domain is not in this root.
        """
        if domain not in self.domains:
            raise UsageError(unknown_name("domain", domain, self.domains) + f" in {self.path}")
        cases, problems = survey(self.layout, domain, split)
        return tuple(cases), problems


def in_phantom(folder: Path) -> bool:
    """Whether a folder is part of a phantom."""
    folders = (folder, *Path(os.path.realpath(folder)).parents)
    return any((above / PHANTOM_MARKER).is_file() for above in folders)


def open_root(data: str | Path | None = None, *, least: int = 2, progress: Progress = SILENT) -> DataRoot:
    """The data root that `data` names.

    Args:
        data: a folder, a YAML file that describes domains (`domain_file.py`), `phantom`, or None for
            $FUNDUS_SEG_DATA, then `data/Fundus`.
        least: how many domains it must hold; training needs two.
        progress: where to show the drawing of the phantom.

    Raises:
        DataError: no data anywhere, a folder that holds fewer domains, or a YAML file that is wrong.
    """
    given = str(data) if data is not None else os.environ.get(DATA_VARIABLE)
    if given == PHANTOM:
        return _domains_in(_embedded_phantom(progress), least, name=PHANTOM)
    if given or DEFAULT_ROOT.is_dir():
        return _domains_in(Path(given or DEFAULT_ROOT), least)
    raise DataError(
        f"no photographs: give their folder with --data ROOT ({PATTERN} below it), or in ${DATA_VARIABLE} "
        f"or ./{DEFAULT_ROOT}, or take the synthetic photographs that come with the package: --data {PHANTOM}"
    )


def _domains_in(root: Path, least: int, name: str | None = None) -> DataRoot:
    if root.suffix.lower() in DOMAIN_FILE_SUFFIXES:
        layout = read_domain_file(root)
        experiment, wanted = tuple(domain.key for domain in layout), "domains"
    elif root.is_dir():
        layout = tuple(_classic(root, domain) for domain in DOMAINS.values() if (root / domain.folder).is_dir())
        experiment, wanted = tuple(DOMAINS), PATTERN
    else:
        raise DataError(
            f"{root}: no such folder; --data takes a folder with {PATTERN} below it, "
            f"a YAML file that describes your domains, or '{PHANTOM}'"
        )
    if len(layout) < least:
        held = f"only domain {layout[0].key}" if layout else "no domain"
        raise DataError(f"{root}: holds {held}; training needs two or more of {wanted}")
    return DataRoot(root, layout, name or str(root.resolve()), experiment)


def _classic(root: Path, domain: Domain) -> DomainFiles:
    """One of the four domains, in the layout that the released code reads."""
    train, test = (
        SplitFiles(
            images=Pattern(root, f"{domain.folder}/{split}/ROIs/image/*.png"),
            masks=((Pattern(root, f"{domain.folder}/{split}/ROIs/mask/{{name}}.png"),),),
        )
        for split in SPLITS
    )
    return DomainFiles(domain.key, domain.name, train, test)


def _embedded_phantom(progress: Progress) -> Path:
    folder = cache_folder() / f"phantom-v{PHANTOM_VERSION}-{EMBEDDED_PER_DOMAIN}"
    if not folder.is_dir():
        try:
            with progress.task("drawing the phantom", total=len(DOMAINS) * EMBEDDED_PER_DOMAIN) as advance:
                make_phantom(folder, per_domain=EMBEDDED_PER_DOMAIN, on_case=advance)
        except DataError as error:
            if not folder.is_dir():  # otherwise another process was quicker, and drew the same
                raise DataError(f"{error}; {CACHE_VARIABLE} names the folder of the cache") from error
    return folder
