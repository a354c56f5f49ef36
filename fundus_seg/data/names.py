r"""The names of cases: how a file's name becomes one, and how a name becomes that of a file.

The same name may be stored as different bytes: macOS takes `é` apart (NFD), other systems do not (NFC). A case's name
is always composed (NFC), and bytes that are not UTF-8 stand in it as `\xe9`, so it can be written into any table. Files
that are written for a case bear its name in this form, and match the photograph's whichever form that has.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Collection, Iterable
from pathlib import Path

from fundus_seg.errors import Problems, printable

LONGEST = 255
"""Most bytes that the name of a file may have on the usual file systems."""


def suffix_of(file: str) -> str:
    """The suffix of a file's name, in lower case; `.nii.gz` is one suffix, and digits are none (`1.2.840.10008.17`)."""
    suffix = Path(file).suffix.lower()
    return ".nii.gz" if file.lower().endswith(".nii.gz") else "" if suffix[1:].isdigit() else suffix


def stem(file: str) -> str:
    """The name of a file without its suffix; `.nii.gz` is one suffix."""
    return file[: len(file) - len(suffix_of(file))]


def key(text: str) -> str:
    r"""The text as names are compared: composed (NFC), with `\xe9` for a byte that is not UTF-8."""
    return unicodedata.normalize("NFC", re.sub("[\ud800-\udfff]", _escaped, text))


def _escaped(surrogate: re.Match[str]) -> str:
    """Python holds the byte 0xe9 of a file name that is not UTF-8 as U+DCE9."""
    code = ord(surrogate[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def name_of(path: Path) -> str:
    """The name of the case that a file belongs to, where no pattern says another."""
    return key(stem(path.name))


def by_name(files: Iterable[Path], what: str, clashes: Problems) -> dict[str, Path]:
    """The files by the names of their cases; those that share a name are left out, and added to `clashes`.

    Args:
        files: the files.
        what: what they are, in the singular, for the problems: "photograph".
        clashes: gets a problem for each file that shares its name.
    """
    found: dict[str, list[Path]] = {}
    for path in files:
        found.setdefault(name_of(path), []).append(path)
    for name, paths in found.items():
        for path, other in zip(paths, [*paths[1:], paths[0]], strict=True):
            if len(paths) > 1:
                clashes.add(
                    f"another {what} is named {name} too, {told_apart(other, path)}, and both would write one file; "
                    "rename one, or give each of them an --out of its own",
                    path,
                )
    return {name: paths[0] for name, paths in found.items() if len(paths) == 1}


def told_apart(path: Path, other: Path) -> str:
    r"""The path as a line shows it; where it would look like another, with how they differ.

    `café.png ('cafe\u0301.png', not 'caf\xe9.png')`
    """
    one, two = str(path), str(other)
    return printable(one) + (f" ({one!a}, not {two!a})" if one != two and key(one) == key(two) else "")


def case_hint(names: Iterable[str], others: Iterable[str]) -> str:
    """A sentence about names that differ from others in upper and lower case alone; nothing where there are none."""
    known = set(others)
    folded = {other.casefold(): other for other in sorted(known)}
    alike = [(name, folded[name.casefold()]) for name in names if name not in known and name.casefold() in folded]
    if not alike:
        return ""
    return f"'{alike[0][0]}' and '{alike[0][1]}' differ in upper and lower case, which counts in names: rename one side"


def file_name(name: str, suffix: str, prefix: str = "") -> str:
    """The name of a file that belongs to a case: `prefix`, `name` and `suffix`.

    A name that would be longer than the file system takes (`LONGEST` bytes) is cut, and ends with a hash of the whole:
    `matched` still knows it.
    """
    if len(f"{prefix}{name}{suffix}".encode()) <= LONGEST:
        return f"{prefix}{name}{suffix}"
    return prefix + _shortened(name, LONGEST - len(f"{prefix}{suffix}".encode())) + suffix


def _shortened(name: str, most: int) -> str:
    """The first bytes of a name, whole characters of it, with a hash: at most `most` bytes."""
    mark = "~" + hashlib.sha256(name.encode()).hexdigest()[:8]
    return name.encode()[: most - len(mark)].decode(errors="ignore") + mark


def matched(wanted: Iterable[str], given: Collection[str]) -> dict[str, str]:
    """The name in `given` that belongs to each wanted name, where there is one.

    It is the same name, or the one that `file_name` made of it since it was too long.
    """
    cut = {name[-9:]: name for name in given if re.fullmatch(r".+~[0-9a-f]{8}", name, re.DOTALL)}
    found = {}
    for name in wanted:
        short = cut.get(_shortened(name, LONGEST)[-9:]) if cut else None
        if name in given:
            found[name] = name
        elif short is not None and name.startswith(short[:-9]):
            found[name] = short
    return found
