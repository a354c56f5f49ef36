"""Recognise how the masks of a proposed domain are coded, from all of them, and what `data init` writes and asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fundus_seg.cores import map_on_cores
from fundus_seg.data.coding import Coding
from fundus_seg.data.io import read_binary_mask, read_drawing
from fundus_seg.data.proposal import ProposedDomain
from fundus_seg.data.recognise import MOST_MASKS, coding_text, coding_to_write
from fundus_seg.data.shown import OneStructure, shown
from fundus_seg.errors import DataError, SharedFaultError, counted, printable
from fundus_seg.progress import Progress

_MOST_ODD = 0.1  # of the masks of a domain may show another coding than the others without a question


@dataclass
class ProposedCoding:
    """How the masks of a domain are coded.

    Attributes:
        line: the value of `coding`; empty if none needs to be written.
        seen: what the masks show, in words.
        questions: what is a guess.
    """

    line: str
    seen: str
    questions: list[str]


def coding_of(domain: ProposedDomain, progress: Progress) -> ProposedCoding:
    """Read all masks of a domain, and say how they are coded; a coded mask of one structure becomes the disc's."""
    files: dict[str, list[Path]] = {}
    for split in domain.splits.values():
        for kind, paths in split.masks.files.items():
            files.setdefault(kind, []).extend(paths)
    every = [path for paths in files.values() for path in paths]
    description = f"reading the masks of {printable(domain.name)}"
    seen = dict(zip(every, map_on_cores(_seen, every, description=description, progress=progress), strict=True))
    if len(files) == 1:
        (kind, paths), *_ = files.items()
        codings = Counter(each for path in paths if isinstance(each := seen[path], Coding))
        single = sum(isinstance(seen[path], OneStructure) for path in paths)
        if codings and codings.total() >= single:
            _rename(domain, kind, "coded")
            return _one_file(paths, seen, codings)
        if single or kind == "disc":
            if kind == "coded":
                domain.questions.append("its masks show one structure alone, which is taken for the disc; is it?")
            _rename(domain, kind, "disc")
            files = {"disc": paths}
        else:
            text = "; ".join([f"no coding recognised in {counted(len(paths), 'mask')}", *_rest(paths, seen)])
            return ProposedCoding("", text, ["which greys or colours are cup, rim and background?"])
    return _binary(files, seen)


_Seen = Coding | OneStructure | DataError | None


def _seen(path: Path) -> _Seen:
    try:
        return shown(read_drawing(path))
    except DataError as error:
        return error


def _rename(domain: ProposedDomain, kind: str, other: str) -> None:
    for split in domain.splits.values():
        for of_kind in (split.masks.patterns, split.masks.files):
            of_kind[other] = of_kind.pop(kind)  # type: ignore[assignment]


def _one_file(paths: Sequence[Path], seen: dict[Path, _Seen], codings: Counter[Coding]) -> ProposedCoding:
    """The coding that most masks show."""
    (coding, count), *others = codings.most_common()
    shows = [path for path in paths if seen[path] == coding]
    line = coding_to_write(coding, shows)
    texts = [f"{count} of {len(paths)} masks show {coding}"]
    questions = []
    if 2 * count < len(paths):
        questions.append(f"only {count} of {len(paths)} masks show this coding; is it right?")
    if not line:
        line = coding_text(coding)
        questions.append(
            "borders are smooth between colours, which no coding reads: export the masks without smoothing"
        )
    elif line != coding_text(coding):
        texts.append("borders are smooth, so thresholds are taken")
    for other, number in others:
        example = next(path for path in paths if seen[path] == other)
        texts.append(f"{number} show {other}, as {printable(example.name)}")
        if number > _MOST_ODD * len(paths):
            questions.append(f"{number} of {len(paths)} masks show {other}: export all of them alike")
    texts += _rest(paths, seen)
    return ProposedCoding(line, "; ".join(texts), questions)


def _rest(paths: Sequence[Path], seen: dict[Path, _Seen]) -> Iterator[str]:
    """How many masks show no three areas."""
    single = sum(isinstance(seen[path], OneStructure) for path in paths)
    unread = [each for path in paths if isinstance(each := seen[path], DataError)]
    unclear = sum(seen[path] is None for path in paths)
    if single:
        yield f"{single} show one structure alone"
    if unclear:
        yield f"{unclear} are empty or not clear"
    if unread:
        yield f"{len(unread)} cannot be read ({printable(unread[0].problems[0].text)})"


def _binary(files: dict[str, list[Path]], seen: dict[Path, _Seen]) -> ProposedCoding:
    """The thresholds of binary files, where white on black does not do."""
    thresholds: dict[str, str] = {}
    texts, questions = [], []
    for kind, paths in files.items():
        single = [each for path in paths if isinstance(each := seen[path], OneStructure)]
        black = [each for each in single if sum(each.inside) < sum(each.outside)]
        colours = Counter(f"{each.inside[0]} inside {each.outside[0]}" for each in single).most_common(1)
        texts.append(
            f"{kind}: {len(single)} of {len(paths)} show one structure" + (f", {colours[0][0]}" if colours else "")
        )
        if black and 2 * len(black) > len(single):
            thresholds[kind] = f"<{-(-(sum(black[0].inside) + sum(black[0].outside)) // 6)}"
        elif smooth := _smooth(paths):
            thresholds[kind] = ">=128"
            questions.append(
                f"the {kind}'s files have more than two greys, as {printable(smooth.name)}; is half of white the limit?"
            )
        if black and len(black) < len(single):
            questions.append(f"{len(black)} of {len(single)} files of the {kind} are black inside: export all alike")
    if list(files) == ["disc"]:
        questions.append("no masks of cups were found, so its cases are of the disc alone; has nobody drawn the cups?")
    if not thresholds:
        return ProposedCoding("", "; ".join(texts), questions)
    whole = {kind: thresholds.get(kind, ">=1") for kind in files}
    line = "{" + ", ".join(f'{kind}: "{limit}"' for kind, limit in whole.items()) + "}"
    return ProposedCoding(
        line if len(set(whole.values())) > 1 else f'"{next(iter(whole.values()))}"', "; ".join(texts), questions
    )


def _smooth(paths: Sequence[Path]) -> Path | None:
    """The first of some binary files that has further greys; None where most have two."""
    smooth = []
    sample = paths[:: max(1, len(paths) // MOST_MASKS)][:MOST_MASKS]
    for path in sample:
        try:
            read_binary_mask(path)
        except SharedFaultError:
            smooth.append(path)
        except DataError:  # told by `data check`
            continue
    return smooth[0] if 2 * len(smooth) > len(sample) else None
