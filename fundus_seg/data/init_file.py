"""Write a domain file for the photographs and masks of any folder: `fundus-seg data init`."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fundus_seg.data.files import NAME
from fundus_seg.data.layout import DOMAIN_FILE
from fundus_seg.data.listing import PHOTOGRAPHS
from fundus_seg.data.proposal import Masks, Proposal, ProposedDomain, ProposedSplit, propose
from fundus_seg.data.proposed_coding import ProposedCoding, coding_of
from fundus_seg.data.survey import Survey, literal, survey
from fundus_seg.errors import DataError, counted, printable
from fundus_seg.progress import SILENT, Progress
from fundus_seg.protocol import DOMAINS
from fundus_seg.runs.atomic import write_text

_MOST_OTHERS = 4  # patterns of further masks that are named


@dataclass(frozen=True)
class Written:
    """What `write_domain_file` wrote.

    Attributes:
        path: the file.
        lines: what was understood, in words.
        questions: how many lines of the file ask whether they are right.
    """

    path: Path
    lines: tuple[str, ...]
    questions: int


def write_domain_file(
    folder: Path, out: Path | None = None, *, force: bool = False, progress: Progress = SILENT
) -> Written:
    """Look at a folder and write a domain file for it; what it cannot know stands there as a comment, `# ?`.

    Args:
        folder: the folder with photographs and masks, at any depth.
        out: the file; None: `domains.yaml` in the folder.
        force: whether a file that is there is replaced.
        progress: shows the reading, and gets what is left out.

    Raises:
        DataError: there is no such folder, no photograph with a mask in it, or a file that must not be replaced.
    """
    path = out or folder / DOMAIN_FILE
    if path.exists() and not force:
        raise DataError("is there already; give --force to replace it, or another --out", path)
    found = survey(folder, progress=progress)
    proposal = propose(found)
    if not proposal.domains:
        raise DataError(_why_nothing(found, proposal), folder)
    base = literal(Path(os.path.relpath(folder, path.parent)).as_posix())
    codings = {domain.key: coding_of(domain, progress) for domain in proposal.domains}
    text = "".join(f"{line}\n" for line in _yaml(proposal, codings, base))
    try:
        write_text(path, text)
    except OSError as error:
        raise DataError(f"cannot be written ({error.strerror}); choose another place with --out", path) from error
    _tell_left_out(found, proposal, progress)
    if any((folder / each.folder / "train/ROIs/image").is_dir() for each in DOMAINS.values()):
        progress.line(
            f"{folder} has the folders of the paper's domains, so --data {folder} opens it without a file too"
        )
    lines = [line for domain in proposal.domains for line in _told(domain, codings[domain.key])]
    return Written(path, tuple(lines), text.count("# ?"))


def _yaml(proposal: Proposal, codings: dict[str, ProposedCoding], base: str) -> Iterator[str]:
    """The lines of the file."""
    yield "# By `fundus-seg data init`. A question mark is a guess: look at it, then run `fundus-seg data check`."
    yield "domains:"
    several = len(proposal.domains) > 1
    for domain in proposal.domains:
        coding = codings[domain.key]
        guess = "  # ? a domain by its folder; is it a centre of its own?" if several else ""
        yield f"  {domain.key}:{guess}"
        for question in (*domain.questions, *coding.questions):
            yield f"    # ? {printable(question)}"
        if domain.name != domain.key:
            yield f"    name: {_quoted(domain.name)}"
        if len(domain.splits) == 1:
            (split,) = domain.splits.values()
            images = _quoted(_below(base, split.images))
            yield f"    images: {images}  # {counted(split.cases, 'case')}, split by a hash of their names"
            yield f"    masks: {_masks(base, split.masks)}"
        else:
            for name, split in domain.splits.items():
                images = _quoted(_below(base, split.images))
                count = counted(split.cases, "case")
                yield f"    {name}: {{images: {images}, masks: {_masks(base, split.masks)}}}  # {count}"
        if coding.line:
            yield f"    coding: {coding.line}  # {coding.seen}"
        else:
            yield f"    # {coding.seen}"
        yield from _further(domain.splits.values(), domain.patient)


def _further(splits: Iterable[ProposedSplit], patient: str) -> Iterator[str]:
    """The lines of a domain about annotators, other masks, what its patterns find beside its cases, and patients."""
    first, *_ = every = list(splits)
    annotators = sorted({name for split in every for name in split.masks.annotators})
    if len({split.masks.annotators for split in every}) > 1:
        yield "    # ? the splits have other annotators each, but a domain has the same in both"
    if annotators:
        names = ", ".join(map(_quoted, annotators))
        half = ", which is all of two" if len(annotators) == 2 else ""
        yield f"    annotators: {{names: [{names}], merge: majority}}  # ? majority{half}, or union ..."
    others = list(dict.fromkeys(other for split in every for other in split.masks.others))
    for other in others[:_MOST_OTHERS]:
        yield f"    # ? further masks, which are not taken: {_quoted(other)}"
    if len(others) > _MOST_OTHERS:
        yield f"    # ? and {len(others) - _MOST_OTHERS} more patterns of further masks"
    for split in every:
        if split.unmasked:
            count = counted(len(split.unmasked), "photograph")
            yield f"    # ? {count} of {_quoted(split.images)} without a mask, as {printable(split.unmasked[0].name)}"
        if split.foreign:
            count = counted(len(split.foreign), "further file")
            yield f"    # ? {_quoted(split.images)} finds {count}, as {printable(split.foreign[0].name)}; move them"
    if patient:
        yield f"    # patient: {_quoted(patient)}  # ? if each of these folders is a patient, take the first # away"
    elif eye := _eyes([path.name for split in every for paths in split.masks.files.values() for path in paths], first):
        yield f'    # patient: "{{patient}}{eye}"  # ? if this is how the names tell the patient, take the first # away'


def _eyes(names: Sequence[str], split: ProposedSplit) -> str:
    """What names have behind the patient's, if each has OD or OS there and both occur; empty if they do not."""
    found = [re.search(r"(?P<between>[-_ ]?)(?P<eye>O[DS])(?![A-Za-z])", name) for name in names]
    between, eyes = ({match[part] for match in found if match} for part in ("between", "eye"))
    if NAME not in split.images or None in found or len(between) != 1 or len(eyes) != 2:
        return ""
    return f"{between.pop()}O[DS]"


def _below(base: str, pattern: str) -> str:
    return pattern if base == "." else f"{base}/{pattern}"


def _masks(base: str, masks: Masks) -> str:
    if "coded" in masks.patterns:
        return _quoted(_below(base, masks.patterns["coded"]))
    parts = (
        f"{kind}: {_quoted(_below(base, masks.patterns[kind]))}" for kind in ("disc", "cup") if kind in masks.patterns
    )
    return "{" + ", ".join(parts) + "}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _told(domain: ProposedDomain, coding: ProposedCoding) -> Iterator[str]:
    """What was understood of a domain, in words."""
    counts = ", ".join(f"{split} {found.cases}" for split, found in domain.splits.items())
    if len(domain.splits) == 1:
        counts = f"{counted(next(iter(domain.splits.values())).cases, 'case')}, split by a hash of their names"
    yield f"domain {domain.key}: {counts}; {coding.line and f'coding {coding.line}: '}{coding.seen}"
    for name, split in domain.splits.items():
        where = ", ".join(split.masks.patterns.values())
        readers = f", {counted(len(split.masks.annotators), 'annotator')}" if split.masks.annotators else ""
        yield f"  {f'{name}: ' if len(domain.splits) > 1 else ''}photographs {split.images}, masks {where}{readers}"


def _tell_left_out(found: Survey, proposal: Proposal, progress: Progress) -> None:
    progress.left_out("photograph", "without a mask", found.photographs)
    splits = [split for domain in proposal.domains for split in domain.splits.values()]
    unmasked = [path for split in splits for path in split.unmasked]
    progress.left_out(
        "photograph", "without a mask, though a pattern finds it", unmasked, "move them, or draw their masks"
    )
    progress.left_out("mask", "without a photograph of its name", found.masks, found.hint)
    progress.left_out("file", "without a suffix of a picture that can be read", found.others, "export as PNG")
    for reason, paths in proposal.left_out.items():
        progress.left_out("file", reason, paths)
    others = {pattern for split in splits for pattern in split.masks.others}
    progress.left_out("pattern", "further masks of photographs that have some", sorted(others))
    progress.left_out("text", "perhaps outlines, which are no masks", found.outlines, _PREPARE)
    progress.left_out("picture", "cannot be read", [f"{each}" for each in found.unreadable])


_PREPARE = "`fundus-seg data prepare --list` names the public sets whose outlines it draws"


def _why_nothing(found: Survey, proposal: Proposal) -> str:
    """Why no domain was found, and what was sought."""
    parts = [
        f"{counted(len(found.photographs), 'photograph')} without a mask",
        f"{counted(len(found.masks), 'mask')} without a photograph",
    ]
    parts += [f"{counted(len(paths), 'file')}, {reason}" for reason, paths in proposal.left_out.items()]
    if found.others:
        parts.append(f"{counted(len(found.others), 'file')} of other kinds, as {printable(found.others[0].name)}")
    if found.outlines:
        parts.append(f"{counted(len(found.outlines), 'text')} that may be outlines ({_PREPARE})")
    if found.unreadable:
        parts.append(f"{counted(len(found.unreadable), 'picture')} that cannot be read")
    sought = ", ".join(PHOTOGRAPHS)
    return (
        f"no photograph with a mask of its disc: {', '.join(parts)}. Looked in all subfolders for pictures ({sought}), "
        "and for masks of few colours whose names, or folders' names, hold those of photographs"
        + (f"; {found.hint}" if found.hint else "")
    )
