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
        patient: "{patient}_{eye}"      # of the case's name; or the end of the photograph's path, "{patient}/*"; or
                                        # {table: eyes.csv, case: file, patient: id}: splits then go by patient
        unannotated-cup: missing                       # a disc without a file of its cup is a case of the disc alone

Paths are relative to the file. The file is read node by node, so that every error names its line.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import yaml

from fundus_seg import yaml_lines
from fundus_seg.builtins import Unannotated
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
from fundus_seg.data.patients import EYE, PATIENT, PatientPattern, Patients, manifest_beside, read_table
from fundus_seg.errors import DataError, UsageError, unknown_name
from fundus_seg.protocol import NONE_UNSEEN
from fundus_seg.yaml_lines import YamlError

DOMAIN_FILE_SUFFIXES = (".yaml", ".yml")
MOST_ANNOTATORS = 100
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_WORD = re.compile(r"[^\W\d_][\w-]{0,31}")  # a domain's key, which stands in folders, options and columns
_TABLE = ("table", "case", "patient", "domain")  # as the arguments of `patients.read_table`

_Entries = dict[str, yaml.Node]


def read_domain_file(path: Path) -> tuple[DomainFiles, ...]:
    """The domains that a YAML file describes, in their order there. Nothing checks yet whether their pictures exist.

    Where nothing in the file says whose eyes the cases are, a manifest.csv of `data prepare` beside it may.

    Raises:
        DataError: the file, or a table of patients that it names, cannot be read or has a fault; the error names the
            file and the line.
    """
    reader = _Reader(path)
    top = reader.entries(reader.root(), ("coding", "domains", "patient"), required=("domains",))
    coding = reader.coding(top["coding"]) if "coding" in top else DOFE
    everyone = reader.patients(top["patient"]) if "patient" in top else None
    manifest = {} if everyone else manifest_beside(path)
    domains = []
    for key, node in reader.entries(top["domains"]).items():
        domain = reader.domain(key, node, coding)
        domains.append(replace(domain, patients=domain.patients or everyone or manifest.get(key)))
    return tuple(domains)


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


class _Annotators(NamedTuple):
    """The annotators of a domain: all, those whose masks make the truth, how, and whether cases may lack some."""

    names: tuple[str, ...] = ()
    merged: tuple[str, ...] = ()
    merge: Merge = "majority"
    may_lack: bool = False


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
        keys = ("name", "images", "masks", "train", "test", "coding", "annotators", "unannotated-cup", "patient")
        entries = self.entries(node, keys)
        name = self.text(entries["name"]) if "name" in entries else key
        patients = self.patients(entries["patient"], key) if "patient" in entries else None
        if "train" not in entries and "test" not in entries:
            return DomainFiles(key, name, self.split(node, entries, coding, entries), patients=patients)
        for stray in ("images", "masks"):
            if stray in entries:
                raise self.error(entries[stray], f"'{stray}' stands beside a split: write it inside 'train' and 'test'")
        if "train" not in entries:
            raise self.error(entries["test"], "a test split needs the key 'train' beside it")
        splits = {
            split: self.split(entries[split], self.entries(entries[split], ("images", "masks")), coding, entries)
            for split in ("train", "test")
            if split in entries
        }
        return DomainFiles(key, name, splits["train"], splits.get("test"), patients)

    def patients(self, node: yaml.Node, domain: str = "") -> Patients:
        """What says whose eyes the cases are, of all domains or of the one whose key is given."""
        if isinstance(node, yaml.ScalarNode):
            pattern = self.pattern(node, (PATIENT, EYE))
            if PATIENT not in pattern:
                raise self.error(node, f"'{pattern}' lacks '{PATIENT}', which stands for the patient's number or name")
            if re.search(rf"{PATIENT}([*]|{EYE})|([*]|{EYE}){PATIENT}", pattern):
                ends = f"write what stands between, as '{PATIENT}_{EYE}', or one character, as '{PATIENT}[LR]'"
                raise self.error(node, f"'{pattern}' does not tell where the patient ends: {ends}")
            return PatientPattern(pattern, domain)
        columns = {key: self.text(each) for key, each in self.entries(node, _TABLE, required=("table",)).items()}
        return read_table(self.path.parent / columns.pop("table"), **columns)

    def split(self, node: yaml.Node, entries: _Entries, coding: Coding | Thresholds, domain: _Entries) -> SplitFiles:
        """Read one split.

        Args:
            node: the split, or the domain if it has no splits.
            entries: the entries of `node`, `images` and `masks` among them.
            coding: the coding of the file, for a domain without its own.
            domain: the entries of the domain, which may have `coding`, `annotators` and `unannotated-cup`.
        """
        for key in ("images", "masks"):
            if key not in entries:
                raise self.error(node, f"the key '{key}' is missing")
        annotators = self.annotators(domain["annotators"]) if "annotators" in domain else _Annotators()
        names = annotators.merged
        binary = isinstance(entries["masks"], yaml.MappingNode)
        if binary:
            parts = self.entries(entries["masks"], ("disc", "cup"), required=("disc",))
            patterns = [
                self.masks(parts[structure], annotated=bool(names))
                for structure in ("disc", "cup")
                if structure in parts
            ]
        else:
            patterns = [self.masks(entries["masks"], annotated=bool(names))]
        if "coding" in domain:
            coding = self.coding(domain["coding"])
            if binary and isinstance(coding, Coding):
                raise self.error(
                    domain["coding"], 'two binary files need no coding but thresholds, as ">=128": leave it out'
                )
        cups = self.unannotated(domain.get("unannotated-cup"), binary=binary, cups=not binary or len(patterns) == 2)
        base = self.path.parent

        def of(annotator: str) -> tuple[Pattern, ...]:
            return tuple(Pattern(base, pattern.replace(ANNOTATOR, annotator)) for pattern in patterns)

        return SplitFiles(
            images=Pattern(base, self.images(entries["images"])),
            masks=tuple(of(annotator) for annotator in names or ("",)),
            annotation=Annotation(None if binary and isinstance(coding, Coding) else coding, annotators.merge, cups),
            readers=tuple((annotator, of(annotator)) for annotator in annotators.names),
            readers_may_lack=annotators.may_lack,
        )

    def unannotated(self, node: yaml.Node | None, *, binary: bool, cups: bool) -> Unannotated:
        """Which cups are not annotated.

        Args:
            node: what the domain says of it.
            binary: whether disc and cup have a file each.
            cups: whether cups have a pattern.
        """
        if not cups:
            if node is not None:
                raise self.error(node, "'masks' names no cup, so that none is annotated: leave 'unannotated-cup' out")
            return "missing"
        if node is None:
            return "never"
        text = self.text(node)
        for kind in ("missing", "empty"):
            if text == kind and (binary or kind == "empty"):
                return kind
        if text == "missing":
            raise self.error(node, "one coded file cannot lack its cup alone: write 'unannotated-cup: empty'")
        raise self.error(node, unknown_name("unannotated-cup", text, ("missing", "empty")))

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

    def annotators(self, node: yaml.Node) -> _Annotators:
        """The annotators of a domain."""
        entries = self.entries(node, ("names", "merge", "missing"), required=("names",))
        if "missing" in entries and (given := self.text(entries["missing"])) != "allowed":
            raise self.error(entries["missing"], f"'{given}': write 'missing: allowed', or leave it out")
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
        may_lack = "missing" in entries
        for merge in MERGES:
            if chosen == merge:
                return _Annotators(tuple(names), tuple(names), merge, may_lack)
        if chosen not in names:
            raise self.error(entries["merge"], unknown_name("merge", chosen, (*MERGES, *names)))
        return _Annotators(tuple(names), (chosen,), may_lack=may_lack)

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
