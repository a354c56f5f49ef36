"""What the names of folders and files say: a split, a structure, a diagnosis, a changed version, or a domain."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Literal

from fundus_seg.data.files import NAME
from fundus_seg.data.names import key

Structure = Literal["disc", "cup", "coded"]
"""What masks hold: one structure, or both in one file."""
SplitWord = Literal["train", "test", "val"]

_SPLIT_WORDS: dict[SplitWord, str] = {
    "train": r"train(?:ing)?(?:set)?|trn|tr",
    "test": r"test(?:ing)?(?:set)?|tst|ts",
    "val": r"val(?:id(?:ation)?)?(?:set)?|dev",
}
_ROLES = re.compile(
    r"images?|imgs?|photos?|photographs?|fundus|color|colour|original|originals|cfp|rois?|masks?|labels?|gts?|ground|"
    r"truths?|annotations?|annotated|annotators?|seg|segs|segmentations?|softmap|softmaps|dis[ck]s?|cups?|od|oc|optic|"
    r"data|dataset|files|full|png|jpe?g|jpg|tiff?|bmp|dicom|dcm|nii|stereo|binary|and|set|of|the|reference|experts?|"
    r"readers?|manual|raw|all|multi|modality"
)
_DIAGNOSES = re.compile(
    r"glaucoma(?:tous)?|suspects?|suspicious|normal|healthy|non|nonglaucoma|amd|positive|negative|abnormal|and|g|n|ng"
)
_VERSIONS = re.compile(r"crop(?:ped)?|squared?|resized?|preprocessed|enhanced|clahe|augmented|nerveremoved|removed")
_STRUCTURES: dict[Structure, re.Pattern[str]] = {
    "disc": re.compile(
        r"(?i:dis[ck])|(?<![A-Za-z])(?:OD|Od|od)(?![A-Za-z])|(?<![A-Za-z])OD(?=(?i:seg|mask|avg|soft|gt))"
    ),
    "cup": re.compile(r"(?i:cup)|(?<![A-Za-z])(?:OC|Oc|oc)(?![A-Za-z])|(?<![A-Za-z])OC(?=(?i:seg|mask|avg|soft|gt))"),
}
_LONGEST_KEY = 32


def words_of(part: str) -> list[str]:
    """The words in a name, in lower case; a capital letter begins one."""
    humps = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", part)
    return [word.lower() for word in re.findall(r"[^\W\d_]+", humps)]


def place(folders: Sequence[str]) -> tuple[SplitWord | None, tuple[str, ...]]:
    """The split that folders name, and the words that are left to name the domain."""
    split: SplitWord | None = None
    left: list[str] = []
    for part in folders:
        words = words_of(part)
        named = [name for name, pattern in _SPLIT_WORDS.items() if any(re.fullmatch(pattern, word) for word in words)]
        split = named[0] if named else split
        kept = [word for word in words if not _is_split(word) and not _ROLES.fullmatch(word)]
        if not kept or all(map(_DIAGNOSES.fullmatch, kept)) or part in ("*", NAME):
            if not words and part not in ("*", NAME):
                left.append(part)  # digits alone name a domain
            continue
        plain = re.sub(r"(?i)(?<![^\W_])(?:" + "|".join(_SPLIT_WORDS.values()) + r")\d*(?![^\W_])", " ", part)
        text = re.sub(r"[\W_]+", " ", plain).strip()
        if text not in left:
            left.append(text)
    return split, tuple(left)


def _is_split(word: str) -> bool:
    return any(re.fullmatch(pattern, word) for pattern in _SPLIT_WORDS.values())


def structure_of(pattern: str) -> Structure:
    """The structure that a pattern names; `coded` if it names none, or both."""
    text = pattern.replace(NAME, "")
    named = [structure for structure, words in _STRUCTURES.items() if words.search(text)]
    if len(named) == 2:  # a folder may name both, and the file or the last folder one
        for part in reversed(PurePosixPath(text).parts):
            within = [structure for structure, words in _STRUCTURES.items() if words.search(part)]
            if within:
                named = within
                break
    return named[0] if len(named) == 1 else "coded"


def is_version(folders: Sequence[str]) -> bool:
    """Whether folders say that their photographs are cropped, squared or changed otherwise."""
    return any(_VERSIONS.fullmatch(word) for part in folders for word in words_of(part))


def key_of(name: str, taken: Iterable[str]) -> str:
    """A key for a domain: one word of its name, unlike those that are taken."""
    word = re.sub(r"[^\w-]+", "-", key(name)).strip("-_")
    word = word if re.match(r"[^\W\d_]", word) else f"d{word}"
    word = word[: _LONGEST_KEY - 3].rstrip("-_")
    known = {each.lower() for each in taken} | {"none"}
    numbered = (word if number == 1 else f"{word}-{number}" for number in range(1, 1000))
    return next(each for each in numbered if each.lower() not in known)
