"""What is written beside prepared cases: the manifest, the data sheet, and the file that describes the domains.

Each set has a manifest and a data sheet in its own folder. Those of the whole folder, and `domains.yaml`, are made of
them, so they are the same in whichever order sets were prepared.
"""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fundus_seg.data.crop import Crop
from fundus_seg.data.files import SPLITS
from fundus_seg.data.layout import DOMAIN_FILE
from fundus_seg.data.patients import MANIFEST
from fundus_seg.datasets.model import EACH, WHOLE, DataSet, Rules
from fundus_seg.errors import Problem, counted
from fundus_seg.runs.atomic import write_text

DATASHEET = "datasheet.md"

COLUMNS = (
    *("set", "domain", "split", "name", "patient", "eye", "diagnosis", "source", "sha256", "truth", "truth_sha256"),
    *("reader", "agreement", "structures", "roi", *Crop.__dataclass_fields__, "orientation", "cup_clipped", "lacks"),
)
"""Columns of a manifest. `lacks` says why a case was left out; the columns after `name` are empty then."""


def manifest_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as the CSV of a manifest."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def read_manifest(path: Path) -> list[dict[str, str]]:
    """The rows of a manifest."""
    with path.open(encoding="utf8", newline="") as file:
        return list(csv.DictReader(file))


def datasheet_text(
    dataset: DataSet,
    rules: Rules,
    sources: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    problems: Sequence[Problem],
    notes: Sequence[str],
) -> str:
    """The data sheet of one set.

    Args:
        dataset: the set.
        rules: how its cases were made.
        sources: names of the folders and archives that it was read from.
        rows: its manifest.
        problems: what is not as published; only `--allow-missing` goes on with any.
        notes: what else is odd, a sentence each.
    """
    held = [row for row in rows if not row.get("lacks")]
    lacking = len(rows) - len(held)
    lines = [
        f"## {dataset.name}: {', '.join(domain.name for domain in dataset.domains)}",
        "",
        *(f"- {what}: {text}" for what, text in _facts(dataset)),
        f"- Cases here: {_counted(dataset, held)}",
        f"- Rules: {rules}",
        f"- Command: `{command(dataset, rules, sources, allow_missing=bool(problems))}`",
        *([f"- Left out: {counted(lacking, 'case')}; see the column `lacks`."] if lacking else []),
        *(f"- Not as published: {problem.text} ({problem.path})" for problem in problems),
        *(f"- {note}" for note in notes),
    ]
    return "\n".join(lines) + "\n"


def described(dataset: DataSet) -> str:
    """What `data prepare --list` says of a set, on several lines."""
    lines = [
        dataset.name,
        *(f"  {what}: {text}" for what, text in _facts(dataset)),
        f"  Must hold: {dataset.holds}",
        f"  Readers: {', '.join(dataset.drawings)} (default: {dataset.reader}); splits: {', '.join(dataset.splits)}",
    ]
    return "\n".join(lines)


def _facts(dataset: DataSet) -> list[tuple[str, str]]:
    """What is known of a set, whatever was downloaded."""
    facts = [
        ("Reference", dataset.reference),
        ("Licence, as found", dataset.licence),
        ("Where to get it", dataset.source),
        ("Published number of photographs", ", ".join(f"{part} {number}" for part, number in dataset.counts.items())),
        ("Annotators", dataset.annotators),
        ("Layout", "verified in real files" if dataset.verified else "built from programs that load it"),
    ]
    return [*facts, ("Note", dataset.note)] if dataset.note else facts


def command(dataset: DataSet, rules: Rules, sources: Sequence[str], *, allow_missing: bool) -> str:
    """The command line that makes the same cases, with every rule spelled out."""
    options = [f"--split {rules.split}", f"--reader {rules.reader}"]
    if rules.agreement:
        options.append(f"--agreement {rules.agreement}")
    if rules.scale_to_disc is not None:
        options.append(f"--scale-to-disc {rules.scale_to_disc:g}")
    elif not dataset.as_is:
        options.append(f"--crop {'x'.join(map(str, rules.crop)) if rules.crop else WHOLE}")
    if allow_missing:
        options.append("--allow-missing")
    return f"fundus-seg data prepare {dataset.name} {shlex.join(sources)} OUT {' '.join(options)}"


def write_whole(out: Path, sets: Mapping[str, DataSet]) -> Path:
    """Write the manifest, the data sheet and the domain file of a folder from those of the sets in it.

    Returns:
        The domain file.
    """
    held = {name: read_manifest(out / name / MANIFEST) for name in sets if (out / name / MANIFEST).is_file()}
    sheets = [(out / name / DATASHEET).read_text("utf8") for name in held]
    domains = [_domains_text(sets[name], rows) for name, rows in held.items()]
    head = f"# Written by `fundus-seg data prepare`; {MANIFEST} tells of each case.\ndomains:\n"
    write_text(out / MANIFEST, manifest_text([row for rows in held.values() for row in rows]))
    write_text(out / DATASHEET, "# Data sheet\n\nWritten by `fundus-seg data prepare`.\n\n" + "\n".join(sheets))
    write_text(out / DOMAIN_FILE, head + "".join(domains))
    return out / DOMAIN_FILE


def _domains_text(dataset: DataSet, rows: Sequence[Mapping[str, str]]) -> str:
    """The domains of a set of which there are cases, as the lines of a domain file."""
    lines = []
    for domain in dataset.domains:
        own = [row for row in rows if row["domain"] == domain.key and not row["lacks"]]
        if not own:
            continue
        each = any(row["reader"] == EACH for row in own)
        folder = "/".join(filter(None, (dataset.name, domain.folder)))
        lines += [f"  {domain.key}:", f'    name: "{domain.name}"']
        for split in SPLITS:
            files = f"{folder}/{split}/ROIs"
            masks = f"{files}/mask/{'{annotator}/' if each else ''}{{name}}.png"
            lines.append(f'    {split}: {{images: "{files}/image/*.png", masks: "{masks}"}}')
        if each:
            lines.append(f"    annotators: {{names: [{', '.join(dataset.combined)}], merge: majority}}")
        if any("cup" not in row["structures"] for row in own):
            lines.append("    unannotated-cup: empty")
    return "".join(f"{line}\n" for line in lines)


def _counted(dataset: DataSet, held: Sequence[Mapping[str, Any]]) -> str:
    parts = []
    for domain in dataset.domains:
        own = [row["split"] for row in held if row["domain"] == domain.key]
        parts.append(f"{domain.key} {', '.join(f'{split} {own.count(split)}' for split in SPLITS)}")
    return f"{counted(len(held), 'case')} ({'; '.join(parts)})"
