"""Where photographs and masks lie: `Domain1..4/{train,test}/ROIs/{image,mask}/*.png` below a data root."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fundus_seg.data.domains import DOMAINS
from fundus_seg.data.phantom import PHANTOM_MARKER, PHANTOM_VERSION, make_phantom
from fundus_seg.errors import DataError, UsageError, listing, unknown_name
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
            DataError: folders or files that are missing on one side, all of them listed.
        """
        if domain not in self.domains:
            raise UsageError(unknown_name("domain", domain, self.domains) + f" in {self.path}")
        rois = self.path / DOMAINS[domain].folder / split / "ROIs"
        images, masks = _files(rois / "image"), _files(rois / "mask")
        problems = [f"{path}: photograph without a mask; expected {rois / 'mask' / path.name}"
                    for name, path in images.items() if name not in masks]  # fmt: skip
        problems += [f"{path}: mask without a photograph; expected {rois / 'image' / path.name}"
                     for name, path in masks.items() if name not in images]  # fmt: skip
        if problems:
            raise DataError(listing(problems, f"files without a partner in {rois}"))
        return tuple(Case(domain, split, name, image, masks[name]) for name, image in images.items())


def open_root(data: str | Path | None = None, *, progress: Progress = SILENT) -> DataRoot:
    """The data root that `data` names: a folder, `phantom`, or None for $FUNDUS_SEG_DATA, then `data/Fundus`.

    Raises:
        DataError: no data anywhere, or a folder that does not hold two or more domains.
    """
    given = str(data) if data is not None else os.environ.get(DATA_VARIABLE)
    if given == PHANTOM:
        return _domains_in(_embedded_phantom(progress), name=PHANTOM)
    if given or DEFAULT_ROOT.is_dir():
        return _domains_in(Path(given or DEFAULT_ROOT))
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


def _domains_in(root: Path, name: str | None = None) -> DataRoot:
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; --data takes a folder with {PATTERN} below it, or '{PHANTOM}'")
    found = tuple(key for key, domain in DOMAINS.items() if (root / domain.folder).is_dir())
    if len(found) < 2:
        held = f"only domain {found[0]}" if found else "no domain"
        raise DataError(f"{root}: holds {held}; training needs two or more of {PATTERN}")
    return DataRoot(root, found, name or str(root.resolve()))


def _files(folder: Path) -> dict[str, Path]:
    """PNG files of a folder by stem, sorted."""
    files = {path.stem: path for path in sorted(folder.glob("*.png")) if not path.name.startswith(".")}
    if not files:
        raise DataError(f"{folder}: {'no *.png in it' if folder.is_dir() else 'no such folder'}; expected {PATTERN}")
    return files


def _embedded_phantom(progress: Progress) -> Path:
    folder = cache_folder() / f"phantom-v{PHANTOM_VERSION}"
    if not folder.is_dir():
        try:
            with progress.task("drawing the phantom", total=len(DOMAINS) * EMBEDDED_PER_DOMAIN) as advance:
                make_phantom(folder, per_domain=EMBEDDED_PER_DOMAIN, on_case=advance)
        except DataError:
            if not folder.is_dir():  # otherwise another process was quicker, and drew the same
                raise
    return folder
