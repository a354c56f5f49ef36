"""RIM-ONE DL: square photographs of the disc, from the three releases of RIM-ONE."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from fundus_seg.builtins import Split
from fundus_seg.datasets.model import DataSet, Details, Drawing, Files, Tables
from fundus_seg.datasets.raw import RawFile
from fundus_seg.datasets.truths import binary_pair
from fundus_seg.protocol import Domain

_STEM = r"(?P<name>r[123]_[^/]+?)"
_PLACE = r"(?:[^/]+/)*?(?P<split>train|test)(?:ing)?(?:_set)?/(?:[^/]+/)*"
_EYE = re.compile(r"r3_[NGS]-\d+-([LR])_")
_EYES = {"L": "left", "R": "right"}


def _official(name: str, match: re.Match[str]) -> Split:
    return "train" if match["split"].lower() == "train" else "test"


def _details(find: Tables, cases: Mapping[str, Sequence[RawFile]]) -> Mapping[str, Details]:
    """The diagnosis from the folders, where there are such; the eye from names of the third release."""
    known = {}
    for name, files in cases.items():
        folders = {folder.lower() for file in files for folder in file.path.split("/")[:-1]}
        eye = _EYE.match(name)
        diagnosis = next((each for each in ("glaucoma", "normal") if each in folders), "")
        known[name] = Details(eye=_EYES[eye[1]] if eye else "", diagnosis=diagnosis)
    return known


RIM_ONE_DL = DataSet(
    name="rim-one-dl",
    domains=(Domain("rim-one-dl", "RIM-ONE DL", ""),),
    reference="Fumero Batista et al., RIM-ONE DL: a unified retinal image database for assessing glaucoma using deep "
    "learning, Image Analysis and Stereology 2020, doi 10.5566/ias.2346",
    licence="research and education, free of charge; no copies, no redistribution, no commercial use (its LICENSE.txt)",
    source="https://github.com/miag-ull/rim-one-dl",
    holds="RIM-ONE_DL_images (partitioned_randomly; partitioned_by_hospital holds the same photographs) and "
    "RIM-ONE_DL_reference_segmentations, two zip files, or a re-pack of Kaggle",
    annotators="one truth of each photograph",
    verified=True,
    photographs=Files(
        "photograph",
        "partitioned_randomly/{training_set,test_set}/{glaucoma,normal}/{name}.png",
        (rf"partitioned_randomly/{_PLACE}{_STEM}(?<!-T)\.png",),
    ),
    drawings={
        "reference": Drawing(
            tuple(
                Files(
                    f"{structure.lower()} mask",
                    f"RIM-ONE_DL_reference_segmentations/{{glaucoma,normal}}/{{name}}-1-{structure}-T.png",
                    (rf"{_STEM}-(?P<revision>\d+)-{structure}-T\.png",),
                )
                for structure in ("Disc", "Cup")
            ),
            binary_pair,
        )
    },
    reader="reference",
    splits=("official", "hash"),
    counts={"train": 339, "test": 146},
    official=_official,
    details=_details,
    note="Photographs are crops of 274 to 793 pixels, so that the default crop of 800 pixels, the same scale as in "
    "rim-one-r3, has a border of black; --scale-to-disc 2 gives all discs one size, --crop none leaves crops as they "
    "are. The official split is partitioned_randomly. The 137 photographs r3_* show eyes of rim-one-r3: training on "
    "one and testing on the other is a leak.",
)
