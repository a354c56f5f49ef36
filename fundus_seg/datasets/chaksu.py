"""Chaksu: three cameras, each of which is a domain, five experts, and their fused masks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from fundus_seg.builtins import Split
from fundus_seg.datasets.model import DataSet, Details, Drawing, Files, Tables
from fundus_seg.datasets.raw import RawFile
from fundus_seg.datasets.tables import records
from fundus_seg.datasets.truths import bright_pair
from fundus_seg.protocol import Domain

_CAMERAS = {"Bosch": (104, 41), "Forus": (95, 31), "Remidio": (810, 264)}  # photographs for training and for testing
_PLACE = r"(?P<split>Train|Test)/(?:[^/]+/)*?"
_CAMERA = r"(?P<camera>Bosch|Forus|Rem[ei]dio)"
_STEM = r"(?P<stem>[^/]+)"
_DECISION = ("Majority Decision", "Glaucoma Decision")
"""What the column of the majority's decision is called: the tables of the three cameras differ."""
_PICTURE = r"\.(?:png|jpe?g|tiff?|bmp)"


def _name(match: re.Match[str]) -> str:
    """The camera and the name of the file; some folders spell `Remedio`."""
    return f"{match['camera'].lower().replace('remedio', 'remidio')}-{match['stem']}"


def _official(name: str, match: re.Match[str]) -> Split:
    return "train" if match["split"].lower() == "train" else "test"


def _details(find: Tables, cases: Mapping[str, Sequence[RawFile]]) -> Mapping[str, Details]:
    """The majority's diagnosis; tables name a photograph `Image101.jpg-Image101-1.jpg`, and misspell `suspect`."""
    known = {}
    for camera in _CAMERAS:
        for split in ("Train", "Test"):
            path = find(rf"{split}/(?:[^/]+/)*Glaucoma_Decision_Comparison_{camera}_majority\.csv")
            for images, decision in records(path, "Images", _DECISION) if path else ():
                name = re.split(r"\.(?:jpe?g|png|tiff?)-", images, maxsplit=1, flags=re.IGNORECASE)[0]
                diagnosis = "normal" if decision.upper() == "NORMAL" else "suspect" if decision else ""
                known[f"{camera}-{name}".casefold()] = Details(diagnosis=diagnosis)
    return {name: known.get(name.casefold(), Details()) for name in cases}


def _pair(what: str, expected: str, pattern: str) -> Drawing:
    """Disc and cup of one reader, whose folders `expected` and `pattern` have `{0}` for the structure."""
    return Drawing(
        tuple(
            Files(
                f"{structure.lower()} mask{what}",
                expected.format(structure),
                (rf"{_PLACE}{pattern.format(structure)}/{_STEM}{_PICTURE}",),
                _name,
            )
            for structure in ("Disc", "Cup")
        ),
        bright_pair,
    )


def _fused(kind: str) -> Drawing:
    return _pair(
        "",
        f"5.0_OD_OC_Mean_Median_Majority_STAPLE/<camera>/{{0}}/{kind}/<stem>.png of {{{{name}}}}",
        rf"5\.0_OD_OC[^/]*/{_CAMERA}/{{0}}/{kind}",
    )


def _expert(number: int) -> Drawing:
    return _pair(
        f" of expert {number}",
        f"3.0_Doctors_Annotations_Binary_OD_OC/Expert {number}/<camera>/{{0}}/<stem>.png of {{{{name}}}}",
        rf"3\.0_Doctors_Annotations_Binary[^/]*/Expert[ _]?{number}/{_CAMERA}/{{0}}",
    )


CHAKSU = DataSet(
    name="chaksu",
    domains=tuple(Domain(f"chaksu-{camera.lower()}", f"Chaksu {camera}", camera) for camera in _CAMERAS),
    reference="Kumar et al., Chaksu: a glaucoma specific fundus image database, Scientific Data 2023",
    licence="CC BY 4.0, by programs that load it (not verified)",
    source="https://doi.org/10.6084/m9.figshare.20123135",
    holds="Train and Test (Train.zip, Test.zip), each with 1.0_Original_Fundus_Images and "
    "5.0_OD_OC_Mean_Median_Majority_STAPLE, or 3.0_Doctors_Annotations_Binary_OD_OC for single experts; leave out the "
    "other folders, since all of it unpacks to more than 200 GB",
    annotators="five experts on their own; their masks fused by the authors in four ways",
    verified=False,
    photographs=Files(
        "photograph",
        "{Train,Test}/1.0_Original_Fundus_Images/<camera>/<stem> of {name}",
        (rf"{_PLACE}1\.0_Original_Fundus_Images/{_CAMERA}/(?:[^/]+/)*{_STEM}{_PICTURE}",),
        _name,
    ),
    drawings={
        **{kind.lower(): _fused(kind) for kind in ("Majority", "STAPLE", "Mean", "Median")},
        **{f"expert{number}": _expert(number) for number in range(1, 6)},
    },
    reader="majority",
    combined=tuple(f"expert{number}" for number in range(1, 6)),
    splits=("official", "hash"),
    counts={
        f"{camera}/{split}": number
        for camera, numbers in _CAMERAS.items()
        for split, number in zip(("train", "test"), numbers, strict=True)
    },
    official=_official,
    domain_of=lambda name: f"chaksu-{name.partition('-')[0]}",
    details=_details,
    note="Cases are named camera-file. majority, staple, mean and median are the authors' fused masks; union and "
    "intersection are made of the five experts' own.",
)
