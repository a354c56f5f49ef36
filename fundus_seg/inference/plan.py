"""What a folder of predictions holds already, and what is left to do there."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fundus_seg.cores import map_on_cores
from fundus_seg.data.mask_files import MaskFiles
from fundus_seg.digests import file_digest, short_hash
from fundus_seg.errors import RunError, printable
from fundus_seg.inference.output import Output, escaped
from fundus_seg.progress import Progress

_EXAMPLES = 3
"""Names that a line gives at most."""


@dataclass(frozen=True)
class Plan:
    """What a call finds in its output folder, and what is left to do.

    Attributes:
        rows: the rows that stay, by name.
        to_do: the photographs to predict, by name.
        again: those of them that had a row.
    """

    rows: Mapping[str, Mapping[str, Any]]
    to_do: Mapping[str, Path]
    again: Sequence[Path]

    def tell(self, output: Output, given: Collection[str], progress: Progress) -> None:
        """Say what was found of the photographs with the given names, if anything was."""
        if self.rows or self.again:
            done = len(self.rows.keys() & given)
            progress.line(f"{output.path}: {done} of {len(given)} photographs are done already")
        if self.again:
            more = f" and {len(self.again) - _EXAMPLES} more" if len(self.again) > _EXAMPLES else ""
            named = ", ".join(printable(path) for path in self.again[:_EXAMPLES])
            progress.line(f"done again, since they or their files have changed: {named}{more}")
        if count := len(self.rows.keys() - given):
            which = "1 photograph of earlier calls is" if count == 1 else f"{count} photographs of earlier calls are"
            progress.line(f"{which} not given now; what was predicted of them stays")


def make_plan(
    output: Output, rows: Mapping[str, Mapping[str, Any]], photographs: Mapping[str, Path], truths: MaskFiles | None
) -> Plan:
    """Compare rows with the photographs; remove the files of those that have changed.

    Raises:
        RunError: rows are of other photographs of the same name.
    """
    to_do: dict[str, Path] = {}
    again: list[Path] = []
    changed, others = [], []
    known = [name for name in photographs if name in rows]
    digests = map_on_cores(lambda name: inputs_of(name, photographs[name], truths), known)
    inputs = dict(zip(known, digests, strict=True))
    for name, path in photographs.items():
        row = rows.get(name)
        if row is None:
            to_do[name] = path
            continue
        same = inputs[name] == row["inputs"]
        if same and (row["roi"] == "none" or output.is_whole(name)):
            continue
        if not same and not _same_path(path, row["photograph"]):
            others.append(f"{printable(path)} (there: {printable(row['photograph'])})")
            continue
        to_do[name] = path
        again.append(path)
        if not same:
            changed.append(name)
    if others:
        named = ", ".join(others[:_EXAMPLES])
        more = f" and {len(others) - _EXAMPLES} more" if len(others) > _EXAMPLES else ""
        raise RunError(
            f"{output.path}: holds the masks of other photographs with the same names ({len(others)} of those given); "
            f"choose another --out for {named}{more}"
        )
    for name in changed:
        output.remove(name)
    return Plan({name: row for name, row in rows.items() if name not in to_do}, to_do, again)


def inputs_of(name: str, path: Path, truths: MaskFiles | None) -> str | None:
    """What stands for the files that a photograph's row comes from; None if they cannot be read."""
    files = truths.files.get(name, ()) if truths else ()
    coding = str(truths.annotation) if truths and files else None
    try:
        return short_hash([coding, *(file_digest(file) for file in (path, *files))], digits=16)
    except OSError:
        return None


def _same_path(path: Path, recorded: str) -> bool:
    return Path(escaped(path)).absolute() == Path(recorded).absolute()
