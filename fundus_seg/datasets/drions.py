"""DRIONS-DB, whose two experts drew the disc alone."""

from __future__ import annotations

from fundus_seg.datasets.contours import outlined
from fundus_seg.datasets.model import DataSet, Drawing, Files
from fundus_seg.protocol import Domain


def _expert(number: int) -> Drawing:
    return Drawing(
        (
            Files(
                "disc contour",
                f"experts_anotation/anotExpert{number}_NNN.txt of {{name}}",
                (rf"experts_ann?otation/(?:[^/]+/)*anotExpert{number}_(?P<number>\d{{3}})\.txt",),
                lambda match: f"image_{match['number']}",
            ),
        ),
        outlined,
    )


DRIONS = DataSet(
    name="drions",
    domains=(Domain("drions", "DRIONS-DB", ""),),
    reference="Carmona et al., Identification of the optic nerve head with genetic algorithms, Artificial "
    "Intelligence in Medicine 2008",
    licence="none found",
    source="https://www.ia.uned.es/~ejcarmona/DRIONS-DB.html",
    holds="DRIONS-DB: images, and experts_anotation (or experts_annotation)",
    annotators="two experts on their own, without a consensus",
    verified=False,
    photographs=Files("photograph", "images/{name}.jpg", (r"images/(?P<name>image_\d{3})\.jpe?g",)),
    drawings={"expert1": _expert(1), "expert2": _expert(2)},
    reader="expert1",
    combined=("expert1", "expert2"),
    splits=("hash",),
    counts={"all": 110},
    names=tuple(f"image_{number:03d}" for number in range(1, 111)),
    note="Nobody drew a cup, so its cases are of the disc alone, and other domains must bring the cups. Photographs of "
    "600x400 are smaller than the default crop, which has a border of black; --scale-to-disc 2 has less.",
)
