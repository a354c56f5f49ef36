"""ORIGA(-light), in the re-packs that still hold its masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fundus_seg.builtins import Split
from fundus_seg.data.names import suffix_of
from fundus_seg.datasets.matlab import mat_labels
from fundus_seg.datasets.model import DataSet, Details, Drawing, Files, Rules, Tables
from fundus_seg.datasets.raw import RawFile
from fundus_seg.datasets.tables import records
from fundus_seg.datasets.truths import coded
from fundus_seg.protocol import Domain

_NAME = r"(?P<name>\d{3})"
_EYES = {"OD": "right", "OS": "left"}
_SETS: dict[str, Split] = {"A": "train", "B": "test"}
_DIAGNOSES = {"0": "normal", "1": "glaucoma"}


def _labels(paths: Sequence[Path], frame: tuple[int, int], rules: Rules) -> NDArray[np.bool_]:
    return (mat_labels if suffix_of(paths[0].name) == ".mat" else coded)(paths, frame, rules)


def _details(find: Tables, cases: Mapping[str, Sequence[RawFile]]) -> Mapping[str, Details]:
    """Eye, diagnosis and set from `OrigaList.csv`, whose names may stand in quotes."""
    path = find(r"OrigaList\.csv")
    if path is None:
        return {}
    return {
        Path(file.strip("'\" ")).stem: Details(
            eye=_EYES.get(eye.upper(), ""),
            diagnosis=_DIAGNOSES.get(label, ""),
            official=_SETS.get(part.strip("'\" ").upper(), ""),
        )
        for file, eye, part, label in records(path, "Filename", "Eye", "Set", "Glaucoma")
    }


ORIGA = DataSet(
    name="origa",
    domains=(Domain("origa", "ORIGA(-light)", ""),),
    reference="Zhang et al., ORIGA(-light): an online retinal fundus image database for glaucoma analysis and "
    "research, EMBC 2010",
    licence="unclear: its authors no longer distribute it; figshare 24549217 says CC BY 4.0 (not verified)",
    source="https://www.kaggle.com/datasets/arnavjain1/glaucoma-datasets (other copies have no masks)",
    holds="ORIGA: Images, and Masks or Semi-automatic-annotations (.mat); OrigaList.csv names eye, diagnosis and set. "
    "Images_Cropped and Images_Square are not used",
    annotators="graders of the Singapore Eye Research Institute; one truth of each photograph",
    verified=False,
    photographs=Files("photograph", "ORIGA/Images/{name}.jpg", (rf"Images/{_NAME}\.jpe?g",)),
    drawings={
        "grader": Drawing(
            (
                Files(
                    "mask",
                    "ORIGA/Masks/{name}.png or ORIGA/Semi-automatic-annotations/{name}.mat",
                    (rf"Masks/{_NAME}\.png", rf"Semi-automatic-annotations[^/]*/(?:[^/]+/)*{_NAME}\.mat"),
                ),
            ),
            _labels,
        )
    },
    reader="grader",
    splits=("hash", "official"),
    counts={"all": 650},
    names=tuple(f"{number:03d}" for number in range(1, 651)),
    details=_details,
    note="The official split is set A for training and B for testing, which OrigaList.csv tells; not every copy has "
    "that table, so the default is the split by names.",
)
