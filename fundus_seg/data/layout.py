"""Where photographs and masks lie: `Domain1..4/{train,test}/ROIs/{image,mask}/*.png` below a data root."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fundus_seg.data.domains import DOMAINS
from fundus_seg.data.phantom import PHANTOM_MARKER, PHANTOM_VERSION, make_phantom
from fundus_seg.errors import DataError, Problem, UsageError, listing, unknown_name
from fundus_seg.progress import SILENT, Progress

Split = Literal["train", "test"]
DATA_VARIABLE = "FUNDUS_SEG_DATA"
CACHE_VARIABLE = "FUNDUS_SEG_CACHE"
DEFAULT_ROOT = Path("data/Fundus")
PATTERN = "Domain1..4/{train,test}/ROIs/{image,mask}/*.png"
PHANTOM = "phantom"
"""What `--data` takes for the embedded synthetic data."""
EMBEDDED_PER_DOMAIN = 36


@dataclass(frozen=True)
class Case:
    """One eye photograph and its mask, as files. `name` is the file's stem, unique within domain and split."""

    domain: str
    split: Split
    name: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class DataRoot:
    """A folder with two or more domains in it. `name` opens it again: its absolute path, or `phantom`."""

    path: Path
    domains: tuple[str, ...]
    name: str

    @property
    def phantom(self) -> bool:
        """Whether these are synthetic photographs, whose scores say nothing about patients."""
        return (self.path / PHANTOM_MARKER).is_file()

    def cases(self, domain: str, split: Split) -> tuple[Case, ...]:
        """The cases of one split, sorted by name.

        Raises:
            UsageError: the domain is not in this root.
            DataError: folders or files that are missing, all of them listed.
        """
        cases, problems = self.survey(domain, split)
        if problems:
            raise DataError(listing(problems, f"files or folders of {domain}/{split} are missing"))
        return cases

    def survey(self, domain: str, split: Split) -> tuple[tuple[Case, ...], tuple[Problem, ...]]:
        """The cases of one split that have both files, sorted by name, and what is missing beside them.

        Raises:
            UsageError: the domain is not in this root.
        """
        if domain not in self.domains:
            raise UsageError(unknown_name("domain", domain, self.domains) + f" in {self.path}")
        rois = self.path / DOMAINS[domain].folder / split / "ROIs"
        folders = (rois / "image", rois / "mask")
        images, masks = map(_files, folders)
        problems = [_no_files(folder) for folder, files in zip(folders, (images, masks), strict=True) if not files]
        if not problems:
            problems = [Problem(path, f"photograph without a mask; expected {rois / 'mask' / path.name}")
                        for name, path in images.items() if name not in masks]  # fmt: skip
            problems += [Problem(path, f"mask without a photograph; expected {rois / 'image' / path.name}")
                         for name, path in masks.items() if name not in images]  # fmt: skip
        cases = tuple(Case(domain, split, name, images[name], masks[name]) for name in images if name in masks)
        return cases, tuple(problems)


def open_root(data: str | Path | None = None, *, least: int = 2, progress: Progress = SILENT) -> DataRoot:
    """The data root that `data` names: a folder, `phantom`, or None for $FUNDUS_SEG_DATA, then `data/Fundus`.

    Args:
        data: what to open.
        least: how many domains it must hold; training needs two.
        progress: where to show that the phantom is being drawn.

    Raises:
        DataError: no data anywhere, or a folder that holds fewer domains.
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


def cache_folder() -> Path:
    """$FUNDUS_SEG_CACHE, or `fundus-seg` in the user's cache folder. Never inside a data root."""
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fundus-seg"


def _domains_in(root: Path, least: int, name: str | None = None) -> DataRoot:
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; --data takes a folder with {PATTERN} below it, or '{PHANTOM}'")
    found = tuple(key for key, domain in DOMAINS.items() if (root / domain.folder).is_dir())
    if len(found) < least:
        raise DataError(str(too_few_domains(root, found)))
    return DataRoot(root, found, name or str(root.resolve()))


def too_few_domains(root: Path, found: Sequence[str]) -> Problem:
    """That training cannot leave a domain out of these."""
    held = f"only domain {found[0]}" if found else "no domain"
    return Problem(root, f"holds {held}; training needs two or more of {PATTERN}")


def _files(folder: Path) -> dict[str, Path]:
    """PNG files of a folder by stem, sorted."""
    return {path.stem: path for path in sorted(folder.glob("*.png")) if not path.name.startswith(".")}


def _no_files(folder: Path) -> Problem:
    return Problem(folder, f"{'no *.png in it' if folder.is_dir() else 'no such folder'}; expected {PATTERN}")


def _embedded_phantom(progress: Progress) -> Path:
    folder = cache_folder() / f"phantom-v{PHANTOM_VERSION}"
    if not folder.is_dir():
        try:
            with progress.task("drawing the phantom", total=len(DOMAINS) * EMBEDDED_PER_DOMAIN) as advance:
                make_phantom(folder, per_domain=EMBEDDED_PER_DOMAIN, on_case=advance)
        except DataError as error:
            if not folder.is_dir():  # otherwise another process was quicker, and drew the same
                raise DataError(f"{error}; {CACHE_VARIABLE} names the folder of the cache") from error
    return folder
