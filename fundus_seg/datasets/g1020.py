"""G1020, whose cups are annotated where they can be seen alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fundus_seg.data.names import suffix_of
from fundus_seg.datasets.contours import labelme
from fundus_seg.datasets.model import DataSet, Details, Drawing, Files, Rules, Tables
from fundus_seg.datasets.raw import RawFile
from fundus_seg.datasets.tables import records
from fundus_seg.datasets.truths import coded
from fundus_seg.protocol import Domain

_NAME = r"(?P<name>image_\d+)"
_DIAGNOSES = {"0": "normal", "1": "glaucoma"}


def _drawn(paths: Sequence[Path], frame: tuple[int, int], rules: Rules) -> NDArray[np.bool_]:
    """Polygons, or a mask made of them; a mask without a cup is of a photograph whose cup nobody annotated."""
    if suffix_of(paths[0].name) == ".json":
        return labelme(paths, frame, rules)
    masks = coded(paths, frame, rules)
    return masks if masks[1].any() else masks[:1]


def _details(find: Tables, cases: Mapping[str, Sequence[RawFile]]) -> Mapping[str, Details]:
    """Diagnoses from `G1020.csv`, in a copy of which one row is damaged: its case has none."""
    path = find(r"G1020\.csv")
    if path is None:
        return {}
    rows = records(path, "imageID", "binaryLabels")
    return {Path(file).stem: Details(diagnosis=_DIAGNOSES.get(label, "")) for file, label in rows}


G1020 = DataSet(
    name="g1020",
    domains=(Domain("g1020", "G1020", ""),),
    reference="Bajwa et al., G1020: a benchmark retinal fundus image dataset for computer-aided glaucoma detection, "
    "IJCNN 2020, arXiv 2006.09158",
    licence="not verified: CC BY 4.0 or research use, by other people's lists",
    source="https://www.dfki.uni-kl.de/g1020, or https://www.kaggle.com/datasets/arnavjain1/glaucoma-datasets",
    holds="G1020: Images with the polygons image_N.json, or Images and Masks; G1020.csv has the diagnoses. "
    "Images_Cropped, Images_Square and NerveRemoved_Images are not used",
    annotators="one truth of each photograph, as polygons of labelme",
    verified=False,
    photographs=Files("photograph", "G1020/Images/{name}.jpg", (rf"Images/{_NAME}\.jpe?g",)),
    drawings={
        "expert": Drawing(
            (
                Files(
                    "file of polygons or mask",
                    "G1020/Images/{name}.json or G1020/Masks/{name}.png",
                    (rf"(?:Images|json)/{_NAME}\.json", rf"Masks/{_NAME}\.png"),
                ),
            ),
            _drawn,
        )
    },
    reader="expert",
    splits=("hash",),
    counts={"all": 1020},
    details=_details,
    note="About 230 photographs have no annotated cup: their cases are of the disc alone, as the manifest says. "
    "Polygons are used before masks, which were made of them.",
)
