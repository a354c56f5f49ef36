"""Propose domains for the photographs and masks of a folder: what `data init` writes, and what it cannot know.

Folders are read by their words: `train`, `Test400` or `val` name a split, `images` or `GT` what lies inside, `Glaucoma`
a diagnosis, `Expert 2` an annotator, and what is left names a domain. Patterns are kept only if they find the very
files that they stand for. Whatever is a guess becomes a question.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from fundus_seg.builtins import Split
from fundus_seg.data.files import ANNOTATOR, NAME, SPLITS, Pattern
from fundus_seg.data.folder_words import SplitWord, is_version, key_of, place, structure_of, words_of
from fundus_seg.data.names import stem, suffix_of
from fundus_seg.data.patients import PATIENT
from fundus_seg.data.survey import Group, Pictures, Survey

_MERGED = ("majority", "consensus", "staple", "average", "avg", "mean", "median", "fusion", "union", "intersection")
_LEAST_SHARE, _FEW_CASES = 0.05, 2


@dataclass
class Masks:
    """The masks of a split: one coded file for each case, or binary files of the disc, or of the disc and the cup.

    Attributes:
        patterns: by structure, or with "coded" alone.
        annotators: the annotators that `{annotator}` stands for; empty for one.
        others: patterns of further masks of the same photographs, which are not taken.
        files: the files that the patterns find, of all annotators, by the patterns' keys.
    """

    patterns: dict[str, str]
    annotators: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    files: dict[str, list[Path]] = field(default_factory=dict)


@dataclass
class ProposedSplit:
    """The photographs of a split, and their masks.

    Attributes:
        images: the pattern of the photographs.
        masks: their masks.
        cases: how many photographs have all their masks.
        unmasked: photographs that the pattern finds too, and that lack a mask.
        foreign: files that the pattern finds too, and that are no photographs of this split.
    """

    images: str
    masks: Masks
    cases: int
    unmasked: tuple[Path, ...] = ()
    foreign: tuple[Path, ...] = ()


@dataclass
class ProposedDomain:
    """A domain.

    Attributes:
        key: its key.
        name: the folders that it is named after.
        splits: its splits; `train` alone: a hash of each case's name splits it.
        questions: what is a guess, in words.
        patient: pattern of the photographs' paths that may tell the patient; empty where folders do not.
    """

    key: str
    name: str
    splits: dict[Split, ProposedSplit]
    questions: list[str] = field(default_factory=list)
    patient: str = ""


@dataclass
class Proposal:
    """Domains, and what is left out.

    Attributes:
        domains: the domains.
        left_out: files, by the reason why they are left out.
    """

    domains: list[ProposedDomain]
    left_out: dict[str, list[Path]]


def propose(found: Survey) -> Proposal:
    """Propose domains for what lies in a folder; none where no photograph has a mask that can be taken."""
    left_out: dict[str, list[Path]] = {}
    places: _Places = {}
    for group in _versions_left_out(found.groups, left_out):
        split, words = place(group.folders)
        places.setdefault(words, {}).setdefault(split or "train", []).append(group)
    patients = _folders_of_patients(found.folder, places)
    domains: list[ProposedDomain] = []
    for words, of_splits in sorted(places.items()):
        for number, splits in enumerate(_merged_splits(found.folder, of_splits, left_out)):
            name = " ".join(words) or found.folder.resolve().name
            domain = ProposedDomain(key_of(name, [each.key for each in domains]), name, {})
            domain.patient = patients.get(words, "")
            _ask_of_splits(domain, splits, of_splits, left_out)
            if domain.splits:
                if number:
                    domain.questions.append("the same place as the domain before; is it one of its own?")
                domains.append(domain)
    small = [domain for domain in domains if sum(split.cases for split in domain.splits.values()) <= _FEW_CASES]
    for domain in small if len(small) > _FEW_CASES else []:
        domain.questions.append("few cases: is this folder a patient and no domain? then move their files together")
    return Proposal(domains, left_out)


_Places = dict[tuple[str, ...], dict[SplitWord, list[Group]]]


def _folders_of_patients(folder: Path, places: _Places) -> dict[tuple[str, ...], str]:
    """Put many places of few cases, beside each other, together as one: their folders are rather those of patients.

    Returns:
        A pattern of paths with `{patient}` for these folders, by the place that holds them now.
    """
    beside: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for words, of_splits in places.items():
        few = sum(len(group.files) for groups in of_splits.values() for group in groups) <= _FEW_CASES
        if words and few and words[:-1] not in places:
            beside.setdefault(words[:-1], []).append(words)
    patients = {}
    for above, small in beside.items():
        if len(small) <= _FEW_CASES:
            continue
        together: dict[SplitWord, list[Group]] = {}
        for words in small:
            for split, groups in places[words].items():
                together.setdefault(split, []).extend(groups)
        merged = [_merge(folder, groups) for groups in together.values()]
        parts = PurePosixPath(merged[0].pattern).parts if merged[0] else ()
        if None not in merged and "*" in parts:
            for words in small:
                del places[words]
            places[above] = together
            patients[above] = "/".join([PATIENT, *("*" for _ in parts[parts.index("*") + 1 :])])
    return patients


def _versions_left_out(groups: Sequence[Group], left_out: dict[str, list[Path]]) -> Iterator[Group]:
    """The groups but those that hold other versions of the photographs of another: cropped ones, or whole frames."""
    places = {group.pattern: place(group.folders) for group in groups}
    for group in groups:
        twins = [each for each in groups if each is not group and group.files.keys() <= each.files.keys()]
        cropped = is_version(group.folders) and any(len(each.folders) == len(group.folders) for each in twins)
        beside = [each for each in twins if places[each.pattern] == places[group.pattern]]
        if cropped or any(_rank(each) < _rank(group) for each in beside):
            reason = "another version of photographs that are taken (cropped or whole, square or resized)"
            left_out.setdefault(reason, []).extend(group.files.values())
        else:
            yield group


def _rank(group: Group) -> tuple[bool, int, str]:
    """Of two versions of the same photographs, the lower is taken: regions of interest, or what lies less deep."""
    return "rois" not in map(str.lower, group.folders), len(group.folders), group.pattern


def _merged_splits(
    folder: Path, of_splits: Mapping[SplitWord, Sequence[Group]], left_out: dict[str, list[Path]]
) -> list[dict[SplitWord, ProposedSplit]]:
    """The groups of a place as splits: one for each, or several domains where no pattern finds all of them."""
    found: list[dict[SplitWord, ProposedSplit]] = [{}]
    for split, groups in of_splits.items():
        whole = _merge(folder, groups)
        for number, group in enumerate([whole] if whole else groups):
            proposed = _split_of(folder, group, left_out)
            if proposed:
                while len(found) <= number:
                    found.append({})
                found[number][split] = proposed
    return [each for each in found if each]


def _merge(folder: Path, groups: Sequence[Group]) -> Group | None:
    """Groups as one, with `*` for folders that differ; None where no such pattern finds their files alone."""
    if len(groups) == 1:
        return groups[0]
    pattern = _joined([group.pattern for group in groups])
    files = {name: path for group in groups for name, path in group.files.items()}
    if pattern is None or not _finds(folder, pattern, files) or len(files) < sum(len(group.files) for group in groups):
        return None
    whole = Group(pattern, files)
    lists = [[masks for masks in group.masks.values() if _share(masks, group) >= _LEAST_SHARE] for group in groups]
    lists = [sorted(each, key=lambda masks: masks.pattern) for each in lists]
    if len({len(each) for each in lists}) != 1:
        return None
    for alike in zip(*lists, strict=True):
        joined = _joined([masks.pattern for masks in alike])
        of_all = {name: path for masks in alike for name, path in masks.files.items()}
        if joined is None or not _finds(folder, joined, of_all):
            return None
        whole.masks[joined] = Pictures(joined, of_all)
    return whole


def _joined(patterns: Sequence[str]) -> str | None:
    """A pattern for several that differ in folders, or in the suffix; None if they differ otherwise."""
    parts = [PurePosixPath(pattern).parts for pattern in patterns]
    if len({len(each) for each in parts}) > 1:
        return None
    *folders, files = zip(*parts, strict=True)
    if len(set(files)) > 1 and len({stem(file) for file in files}) > 1:
        return None
    file = files[0] if len(set(files)) == 1 else stem(files[0]) + ".*"
    return "/".join([*(part[0] if len(set(part)) == 1 else "*" for part in folders), file])


def _finds(folder: Path, pattern: str, files: Mapping[str, Path]) -> bool:
    return dict(Pattern(folder, pattern).find().files) == dict(files)


def _share(masks: Pictures, group: Group) -> float:
    return len(masks.files) / len(group.files)


def _split_of(folder: Path, group: Group, left_out: dict[str, list[Path]]) -> ProposedSplit | None:
    """The split that a group makes; None without masks of the disc."""
    rare = [masks for masks in group.masks.values() if _share(masks, group) < _LEAST_SHARE]
    for each in rare:
        left_out.setdefault("masks that hardly any photograph beside theirs has", []).extend(each.files.values())
    usual = _disjoint_joined(folder, [masks for masks in group.masks.values() if _share(masks, group) >= _LEAST_SHARE])
    by_structure: dict[str, list[Pictures]] = {}
    for each in usual:
        by_structure.setdefault(structure_of(each.pattern), []).append(each)
    masks = _chosen(by_structure)
    if masks is None:
        reason = "masks of the cup alone, without the disc"
        left_out.setdefault(reason, []).extend(path for each in usual for path in each.files.values())
        return None
    chosen = {path for paths in masks.files.values() for path in paths}
    complete = set.intersection(*(set(each.files) for each in usual if chosen & set(each.files.values())))
    images, foreign = _images(folder, group)
    missing = tuple(path for name, path in sorted(group.files.items()) if name not in complete)
    return ProposedSplit(images, masks, len(complete), missing, foreign)


def _disjoint_joined(folder: Path, found: Sequence[Pictures]) -> list[Pictures]:
    """Masks of one structure that lie in several folders, each of other photographs, as one with `*` for the folder."""
    left = list(found)
    for structure in ("disc", "cup", "coded"):
        alike = [masks for masks in left if structure_of(masks.pattern) == structure]
        files = {name: path for masks in alike for name, path in masks.files.items()}
        pattern = _joined([masks.pattern for masks in alike]) if len(alike) > 1 else None
        if pattern and len(files) == sum(len(masks.files) for masks in alike) and _finds(folder, pattern, files):
            left = [masks for masks in left if masks not in alike] + [Pictures(pattern, files)]
    return left


def _chosen(found: Mapping[str, Sequence[Pictures]]) -> Masks | None:
    """Of several masks of the same photographs, those to take: merged ones, or those of all annotators, or the most."""
    kinds: tuple[str, ...] = ("disc", "cup") if {"disc", "cup"} <= found.keys() else ()
    most = max((len(each.files) for kind in kinds for each in found[kind]), default=0)
    if "coded" in found and max(len(each.files) for each in found["coded"]) >= most:
        kinds = ("coded",)
    kinds = kinds or (("disc",) if "disc" in found else ())
    if not kinds:
        return None
    everything = [each for several in found.values() for each in several]
    merged = _preferred({kind: found[kind] for kind in kinds})
    readers = None if merged else _annotated({kind: found[kind] for kind in kinds})
    if readers:
        patterns, names = readers
        files = {kind: [path for each in found[kind] for path in each.files.values()] for kind in kinds}
        others = [each.pattern for kind, several in found.items() if kind not in kinds for each in several]
        return Masks(patterns, names, tuple(others), files)
    taken = merged or {kind: max(found[kind], key=lambda each: (len(each.files), -len(each.pattern))) for kind in kinds}
    patterns = {kind: each.pattern for kind, each in taken.items()}
    others = [each.pattern for each in everything if each.pattern not in patterns.values()]
    return Masks(patterns, (), tuple(others), {kind: list(each.files.values()) for kind, each in taken.items()})


def _preferred(found: Mapping[str, Sequence[Pictures]]) -> dict[str, Pictures] | None:
    """The masks that several annotators' were merged to, where every structure has them beside others."""
    if max(map(len, found.values())) == 1:
        return None
    parts = {each.pattern: set(PurePosixPath(each.pattern).parts) for several in found.values() for each in several}
    common = set.intersection(*parts.values())
    words = {pattern: {word for part in own - common for word in words_of(part)} for pattern, own in parts.items()}
    for word in _MERGED:
        taken = {kind: each for kind, several in found.items() for each in several if word in words[each.pattern]}
        if len(taken) == len(found):
            return taken
    return None


def _annotated(found: Mapping[str, Sequence[Pictures]]) -> tuple[dict[str, str], tuple[str, ...]] | None:
    """One pattern with `{annotator}` for each structure, and the annotators, if the patterns differ in those alone.

    An annotator is the whole name of a folder, or a word in the names of folders and files.
    """
    if min(map(len, found.values())) < 2:
        return None
    for cut in (r"[^/]+(?=/)|/|[^/]+$", r"\{name\}|[^\W\d_]+|\d+|[\W_]"):
        joined = {kind: _with_annotator([each.pattern for each in several], cut) for kind, several in found.items()}
        names = {each[1] for each in joined.values() if each}
        if None not in joined.values() and len(names) == 1:
            return {kind: each[0] for kind, each in joined.items() if each}, names.pop()
    return None


def _with_annotator(patterns: Sequence[str], cut: str) -> tuple[str, tuple[str, ...]] | None:
    """The pattern that all are with another annotator each, and these, in patterns cut into pieces."""
    pieces = [re.findall(cut, pattern) for pattern in patterns]
    if len({len(each) for each in pieces}) > 1:
        return None
    columns = list(zip(*pieces, strict=True))
    differing = {column for column in columns if len(set(column)) > 1}
    if len(differing) != 1:
        return None
    names = differing.pop()
    if len(set(names)) < len(names) or any(NAME in name or "." in name for name in names):
        return None
    ordered = tuple(sorted(names, key=lambda name: (len(name), name)))
    return "".join(ANNOTATOR if column == names else column[0] for column in columns), ordered


def _images(folder: Path, group: Group) -> tuple[str, tuple[Path, ...]]:
    """A pattern that finds the photographs of a group, and the other files that it finds, if none finds them alone."""
    wanted = set(group.files.values())
    inside = [path for _, path in Pattern(folder, group.pattern).find().files]
    others = [path for path in inside if path not in wanted]
    if not others:
        return group.pattern, ()
    file = PurePosixPath(group.pattern).name
    if stem(file) == NAME:
        above = group.pattern.removesuffix(file)
        ends = "".join(sorted({stem(path.name)[-1] for path in others}))
        for narrower in ("*[0-9]", f"*[!{ends}]"):
            pattern = f"{above}{narrower}{suffix_of(file)}"
            if {path for _, path in Pattern(folder, pattern).find().files} == wanted:
                return pattern, ()
    return group.pattern, tuple(others)


def _ask_of_splits(
    domain: ProposedDomain,
    splits: dict[SplitWord, ProposedSplit],
    of_splits: Mapping[SplitWord, Sequence[Group]],
    left_out: dict[str, list[Path]],
) -> None:
    """Give a domain its splits: the tool has two, so a third is left out, and one alone is split by names."""
    if {"train", "test"} <= splits.keys() and (third := splits.pop("val", None)):
        paths = [path for group in of_splits["val"] for path in group.files.values()]
        left_out.setdefault("a third split: a domain has train and test, and halves its test split itself", []).extend(
            paths
        )
        domain.questions.append(f"{third.images} is a third split, which is not taken; is that right?")
    elif "val" in splits and len(splits) == 2:
        other = "test" if "train" in splits else "train"
        splits[other] = splits.pop("val")  # type: ignore[index]
        domain.questions.append(f"the validation split is taken for {other}; is that right?")
    kinds = [set(split.masks.patterns) for split in splits.values()]
    if len(splits) == 2 and kinds[0] != kinds[1]:
        of_other = [path for group in of_splits["test"] for path in group.files.values()]
        left_out.setdefault("a test split whose masks are of another form than those of train", []).extend(of_other)
        domain.questions.append(f"the masks of {splits.pop('test').images} have another form; describe them apart")
    if len(splits) == 1:
        domain.splits = {"train": next(iter(splits.values()))}
    else:
        domain.splits = {split: splits[split] for split in SPLITS if split in splits}
