"""RIM-ONE r3, stereo photographs whose left view is annotated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fundus_seg.datasets.dofe_split import members
from fundus_seg.datasets.model import DataSet, Details, Drawing, Files, Tables
from fundus_seg.datasets.raw import RawFile
from fundus_seg.datasets.truths import binary_pair
from fundus_seg.protocol import Domain

_NAME = r"(?P<name>[NGS]-\d+-[LR])"
_DIAGNOSES = {"N": "normal", "G": "glaucoma", "S": "suspect"}
_EYES = {"L": "left", "R": "right"}


def _details(find: Tables, cases: Mapping[str, Sequence[RawFile]]) -> Mapping[str, Details]:
    """Diagnosis and eye, from the name; no table names the patients."""
    return {name: Details(eye=_EYES[name[-1]], diagnosis=_DIAGNOSES[name[0]]) for name in cases}


def _pair(folder: str, ending: str) -> Drawing:
    """Disc and cup of one reader. Before a reader's name stands a revision, the highest of which is taken."""
    revised, below = r"(?:-(?P<revision>\d+))?", folder.replace("_", "[ _]")
    return Drawing(
        tuple(
            Files(
                f"{structure.lower()} mask",
                f"{folder}/{{name}}-{structure}-{ending}.png",
                (rf"{below}/{_NAME}{revised}-{structure}-{ending}\.png",),
            )
            for structure in ("Disc", "Cup")
        ),
        binary_pair,
    )


RIM_ONE_R3 = DataSet(
    name="rim-one-r3",
    domains=(Domain("rim-one-r3", "RIM-ONE r3", ""),),
    reference="Fumero et al., Interactive tool and database for optic disc and cup segmentation of stereo and "
    "monocular retinal fundus images, WSCG 2015",
    licence="free for research; not to be redistributed without the authors' consent (its readme)",
    source="https://medimrg.webs.ull.es/research/downloads/",
    holds="RIM-ONE r3: Healthy and Glaucoma and suspects, each with Stereo Images, Expert1_masks, Expert2_masks and "
    "Average_masks",
    annotators="two experts, and their average by the authors",
    verified=True,
    photographs=Files("photograph", "Stereo Images/{name}.jpg", (rf"Stereo[ _]Images/(?:[^/]+/)*{_NAME}\.jpe?g",)),
    drawings={
        "average": _pair("Average_masks", "Avg"),
        "expert1": _pair("Expert1_masks", "exp1"),
        "expert2": _pair("Expert2_masks", "exp2"),
    },
    reader="average",
    combined=("expert1", "expert2"),
    splits=("dofe", "hash"),
    counts={"all": 159},
    names=tuple(sorted(members("B"))),
    dofe=members("B"),
    columns=(0, 1072),
    details=_details,
    note="Photographs hold two views; the left one alone is annotated, and the crop never shows the other.",
)
