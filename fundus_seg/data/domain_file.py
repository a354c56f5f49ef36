"""Read a YAML file that describes domains: where their photographs and masks lie, and how the masks are coded.

    coding: {cup: 0, rim: 128, background: 255}      # for all domains; greys, "#rrggbb" colours, dofe or labels, or
                                                     # thresholds for grey maps: {disc: ">=128", cup: ">=192"}
    domains:
      north:
        name: Clinic North, Kowa
        train: {images: "north/train/*.jpg", masks: "north/masks/{name}.png"}
        test: {images: "north/test/*.jpg", masks: "north/masks/{name}.png"}
      south:                                         # no splits: a hash of its name makes one case in five a test case
        images: "south/{name}/photo.tif"
        masks: {disc: "south/{name}/{annotator}-od.png", cup: "south/{name}/{annotator}-oc.png"}    # two binary files
        annotators: {names: [ann, bob, cem], merge: majority}      # or union, intersection, or one of the names

Paths are relative to the file. The file is read node by node, so that every error names its line.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

import yaml

from fundus_seg import yaml_lines
from fundus_seg.data.coding import (
    CODINGS,
    DOFE,
    MERGES,
    Annotation,
    Coding,
    Colour,
    Merge,
    Thresholds,
    grey,
    threshold,
    with_bounds,
)
from fundus_seg.data.files import ANNOTATOR, NAME, WILDCARDS, DomainFiles, Pattern, SplitFiles
from fundus_seg.errors import DataError, UsageError, unknown_name
from fundus_seg.protocol import NONE_UNSEEN
from fundus_seg.yaml_lines import YamlError

DOMAIN_FILE_SUFFIXES = (".yaml", ".yml")
MOST_ANNOTATORS = 100
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_WORD = re.compile(r"[^\W\d_][\w-]{0,31}")  # a domain's key, which stands in folders, options and columns

_Entries = dict[str, yaml.Node]


def read_domain_file(path: Path) -> tuple[DomainFiles, ...]:
    """The domains that a YAML file describes, in their order there. Nothing checks yet whether their files exist.

    Raises:
        DataError: the file cannot be read or has a fault; the error names the file and the line.
    """
    reader = _Reader(path)
    top = reader.entries(reader.root(), ("coding", "domains"), required=("domains",))
    coding = reader.coding(top["coding"]) if "coding" in top else DOFE
    return tuple(reader.domain(key, node, coding) for key, node in reader.entries(top["domains"]).items())


def read_coding(text: str) -> Coding | Thresholds:
    """Read a coding written as in such a file: a name, `{cup: 2, rim: 1, background: 0}`, or thresholds as `>=128`.

    Raises:
        UsageError: the text is not a coding.
    """
    quoted = re.sub(r"""(?<![\w"'])[<>]=?\s*\d+""", r'"\g<0>"', text)  # a shell takes the quotes away
    with contextlib.suppress(DataError, YamlError):
        node = yaml_lines.compose(quoted)
        if node is not None:
            return _Reader(Path()).coding(node)
    raise UsageError(
        f"'{text}' is not a coding: write {', '.join(CODINGS)}, or {{cup: 2, rim: 1, background: 0}} with three greys "
        'of 0 to 255 or colours as "#rrggbb", or {disc: ">=128", cup: ">=192"} for grey maps'
    )


class _Reader:
    """Reads the nodes of one YAML file, and raises an error with the line of the first that is wrong."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def error(self, node: yaml.Node, message: str) -> DataError:
        return DataError(message, self.path, node.start_mark.line + 1)

    def root(self) -> yaml.Node:
        try:
            with self.path.open("rb") as file:
                content = file.read(4 * yaml_lines.MOST_CHARACTERS + 1).decode("utf8")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "not a text file in UTF-8: save it as UTF-8"
            raise DataError(f"cannot be read ({reason}); give a YAML file that describes domains", self.path) from error
        try:
            node = yaml_lines.compose(content)
        except YamlError as error:
            raise DataError(f"not valid YAML: {error}", self.path, error.line) from error
        if node is None:
            raise DataError("an empty file; write the key 'domains'", self.path)
        return node

    def entries(self, node: yaml.Node, keys: Sequence[str] = (), required: Sequence[str] = ()) -> _Entries:
        """The entries of a mapping, by key: each key is one of `keys`, or any word if `keys` is empty."""
        if not isinstance(node, yaml.MappingNode):
            expected = " and ".join(required or keys) or "an entry for each domain"
            raise self.error(node, f"expected {expected} here")
        found: _Entries = {}
        try:
            for entry in yaml_lines.entries(node):
                if keys and entry.key not in keys:
                    raise DataError(unknown_name("key", entry.key, keys), self.path, entry.line)
                if not _WORD.fullmatch(entry.key):
                    text = f"'{entry.key}' cannot name a domain: take one short word"
                    raise DataError(text, self.path, entry.line)
                if entry.key.lower() == NONE_UNSEEN:
                    text = f"'{entry.key}' cannot name a domain: --holdout none trains on all domains; rename it"
                    raise DataError(text, self.path, entry.line)
                if entry.repeated:
                    raise DataError(f"the key '{entry.key}' appears twice", self.path, entry.line)
                found[entry.key] = entry.node
        except YamlError as error:
            raise DataError(f"not valid YAML: {error}", self.path, error.line) from error
        for key in required:
            if key not in found:
                raise self.error(node, f"the key '{key}' is missing")
        return found

    def text(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode) or not node.value:
            raise self.error(node, 'expected a text here; write it in quotes if it holds {, } or #, as "{name}.png"')
        text = str(node.value)
        try:
            os.fsencode(text)
        except UnicodeEncodeError:
            unusable = True
        else:
            unusable = bool(_CONTROL.search(text))
        if unusable:
            shown = text[:40].encode("unicode_escape").decode("ascii")
            raise self.error(node, f"'{shown}' has a character that no file name has: take it out")
        return text

    def domain(self, key: str, node: yaml.Node, coding: Coding | Thresholds) -> DomainFiles:
        entries = self.entries(node, ("name", "images", "masks", "train", "test", "coding", "annotators"))
        name = self.text(entries["name"]) if "name" in entries else key
        if "train" not in entries and "test" not in entries:
            return DomainFiles(key, name, self.split(node, entries, coding, entries))
        for stray in ("images", "masks"):
            if stray in entries:
                raise self.error(entries[stray], f"'{stray}' stands beside a split: write it inside 'train' and 'test'")
        if "train" not in entries:
            raise self.error(entries["test"], "a test split needs the key 'train' beside it")
        splits = [
            self.split(entries[split], self.entries(entries[split], ("images", "masks")), coding, entries)
            for split in ("train", "test")
            if split in entries
        ]
        return DomainFiles(key, name, *splits)

    def split(self, node: yaml.Node, entries: _Entries, coding: Coding | Thresholds, domain: _Entries) -> SplitFiles:
        """Read one split.

        Args:
            node: the split, or the domain if it has no splits.
            entries: the entries of `node`, `images` and `masks` among them.
            coding: the coding of the file, for a domain without its own.
            domain: the entries of the domain, which may have `coding` and `annotators`.
        """
        for key in ("images", "masks"):
            if key not in entries:
                raise self.error(node, f"the key '{key}' is missing")
        names, merge = self.annotators(domain["annotators"]) if "annotators" in domain else ((), "majority")
        binary = isinstance(entries["masks"], yaml.MappingNode)
        if binary:
            parts = self.entries(entries["masks"], ("disc", "cup"), required=("disc", "cup"))
            patterns = [self.masks(parts[structure], annotated=bool(names)) for structure in ("disc", "cup")]
        else:
            patterns = [self.masks(entries["masks"], annotated=bool(names))]
        if "coding" in domain:
            coding = self.coding(domain["coding"])
            if binary and isinstance(coding, Coding):
                raise self.error(
                    domain["coding"], 'two binary files need no coding but thresholds, as ">=128": leave it out'
                )
        base = self.path.parent
        return SplitFiles(
            images=Pattern(base, self.images(entries["images"])),
            masks=tuple(
                tuple(Pattern(base, pattern.replace(ANNOTATOR, annotator)) for pattern in patterns)
                for annotator in names or ("",)
            ),
            annotation=Annotation(None if binary and isinstance(coding, Coding) else coding, merge),
        )

    def images(self, node: yaml.Node) -> str:
        pattern = self.pattern(node, (NAME,))
        if NAME not in pattern and not set(pattern) & set(WILDCARDS):
            raise self.error(node, f"'{pattern}' is one file: write '*' or '{NAME}' where names differ")
        return pattern

    def masks(self, node: yaml.Node, *, annotated: bool) -> str:
        pattern = self.pattern(node, (NAME, ANNOTATOR))
        if NAME not in pattern:
            raise self.error(node, f"'{pattern}' lacks '{NAME}', which stands for the photograph's name")
        if annotated and ANNOTATOR not in pattern:
            raise self.error(node, f"'{pattern}' lacks '{ANNOTATOR}', though the domain names its annotators")
        if not annotated and ANNOTATOR in pattern:
            missing = "the domain has no 'annotators: {names: [...]}'"
            raise self.error(node, f"'{pattern}' has '{ANNOTATOR}', but {missing}")
        return pattern

    def pattern(self, node: yaml.Node, placeholders: Sequence[str]) -> str:
        pattern = self.text(node)
        for placeholder in re.findall(r"\{[^}]*\}?", pattern):
            if placeholder not in placeholders:
                raise self.error(node, unknown_name("placeholder", placeholder, placeholders))
        if "**" in pattern:
            raise self.error(node, "'**' is not supported: write '*' for each folder between")
        return pattern

    def annotators(self, node: yaml.Node) -> tuple[tuple[str, ...], Merge]:
        """The annotators whose masks are read, and how these are merged."""
        entries = self.entries(node, ("names", "merge"), required=("names",))
        if not isinstance(entries["names"], yaml.SequenceNode) or not entries["names"].value:
            raise self.error(entries["names"], "expected a list of annotators here, as [a, b, c]")
        if len(entries["names"].value) > MOST_ANNOTATORS:
            count = len(entries["names"].value)
            raise self.error(entries["names"], f"{count} annotators, more than {MOST_ANNOTATORS}")
        names = [self.text(item) for item in entries["names"].value]
        for name, item in zip(names, entries["names"].value, strict=True):
            if names.count(name) > 1 or name in MERGES:
                raise self.error(item, f"annotator '{name}': each needs a different name, and not {', '.join(MERGES)}")
        chosen = self.text(entries["merge"]) if "merge" in entries else "majority"
        for merge in MERGES:
            if chosen == merge:
                return tuple(names), merge
        if chosen not in names:
            raise self.error(entries["merge"], unknown_name("merge", chosen, (*MERGES, *names)))
        return (chosen,), "majority"

    def coding(self, node: yaml.Node) -> Coding | Thresholds:
        if isinstance(node, yaml.ScalarNode):
            if node.value in CODINGS:
                return CODINGS[node.value]
            with contextlib.suppress(ValueError):
                return Thresholds(threshold(node.value), threshold(node.value))
            names = " or ".join(CODINGS)
            raise self.error(
                node,
                f"unknown coding '{node.value[:100]}': write {names}, or {{cup: 0, rim: 128, background: 255}}, "
                'or a threshold as ">=128"',
            )
        areas, structures = ("background", "rim", "cup"), ("disc", "cup")
        entries = self.entries(node, (*areas, "disc"))
        if "disc" in entries:
            entries = self.entries(node, structures, required=structures)
            return Thresholds(*(self.threshold(entries[structure]) for structure in structures))
        entries = self.entries(node, areas, required=areas)
        background, rim, cup = (self.colour(entries[area]) for area in areas)
        if len({background, rim, cup}) < len(areas):
            raise self.error(node, "cup, rim and background need three different colours")
        return with_bounds(Coding(background, rim, cup))

    def threshold(self, node: yaml.Node) -> str:
        text = self.text(node)
        try:
            return threshold(text)
        except ValueError:
            wrong = f"'{text}' is not a threshold: write a comparison with a grey of 0 to 255 in quotes, as \">=128\""
            raise self.error(node, wrong) from None

    def colour(self, node: yaml.Node) -> Colour:
        text = self.text(node)
        try:
            value = yaml_lines.value(node)
        except YamlError as error:
            raise self.error(node, f"not valid YAML: {error}") from error
        if type(value) is int and 0 <= value <= 255:
            return grey(value)
        if not re.fullmatch(r"#[0-9a-fA-F]{6}", text):
            raise self.error(node, f"'{text}' is not a colour: write a grey of 0 to 255, or \"#rrggbb\" in quotes")
        return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)
