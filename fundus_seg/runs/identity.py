"""Which run it is: its folder's place, and the name of its column."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fundus_seg.config import RunConfig
from fundus_seg.runs.folder import RunFolder


def run_folder(config: RunConfig, out: Path, *, experiment: Iterable[str], phantom: bool) -> RunFolder:
    """Where the run with these resolved settings lies below `out`; the phantom's runs lie apart."""
    base = out / "phantom" if phantom else out
    return RunFolder(base / config.preset / config.holdout / operator_name(config, experiment) / f"seed-{config.seed}")


def operator_name(config: RunConfig, experiment: Iterable[str]) -> str:
    """The operator with the slug of what differs from its preset: a folder's name, and a table's column."""
    return config.slug(all_domains=experiment)
