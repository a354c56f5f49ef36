"""GAMMA, the 100 annotated photographs of its third task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fundus_seg.datasets.model import DataSet, Details, Drawing, Files, Tables
from fundus_seg.datasets.raw import RawFile
from fundus_seg.datasets.tables import records
from fundus_seg.datasets.truths import coded
from fundus_seg.protocol import Domain

_NAME = r"(?P<name>0\d{3})"
_GRADES = ("normal", "early glaucoma", "intermediate or advanced glaucoma")


def _details(find: Tables, cases: Mapping[str, Sequence[RawFile]]) -> Mapping[str, Details]:
    """The grade from the table of the first task, which marks one of three columns with 1."""
    path = find(r"glaucoma_grading_training_GT\.xlsx")
    if path is None:
        return {}
    known = {}
    for number, *marks in records(path, "data", "non", "early", "mid_advanced"):
        known[number.zfill(4)] = Details(diagnosis=_GRADES[marks.index("1")] if "1" in marks else "")
    return known


GAMMA = DataSet(
    name="gamma",
    domains=(Domain("gamma", "GAMMA", ""),),
    reference="Wu et al., GAMMA challenge: glaucoma grading from multi-modality images, Medical Image Analysis 2023",
    licence="CC BY-NC-ND, by another list (not verified)",
    source="https://gamma.grand-challenge.org",
    holds="task3_disc_cup_segmentation/training: fundus color images and Disc_Cup_Mask; "
    "glaucoma_grading_training_GT.xlsx of the first task has the grades. The test photographs have no masks",
    annotators="one truth of each photograph",
    verified=False,
    photographs=Files(
        "photograph",
        "training/fundus color images/{name}.jpg",
        (
            rf"training(?:_data)?/(?:[^/]+/)*?fundus[ _]color[ _]images/{_NAME}\.jpe?g",
            rf"training(?:_data)?/(?:[^/]+/)*?multi-modality_images/\d+/{_NAME}\.jpe?g",
        ),
    ),
    drawings={
        "consensus": Drawing(
            (
                Files(
                    "mask",
                    "training/Disc_Cup_Mask/{name}.png",
                    (rf"Disc_Cup_Masks?/(?:[^/]+/)*{_NAME}\.(?:png|bmp)",),
                ),
            ),
            coded,
        )
    },
    reader="consensus",
    splits=("hash",),
    counts={"all": 100},
    names=tuple(f"{number:04d}" for number in range(1, 101)),
    details=_details,
    note="The official test photographs have no masks, so the 100 for training are split by their names.",
)
