"""PAPILA: both eyes of 244 patients, with the contours of two experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fundus_seg.datasets.contours import outlined
from fundus_seg.datasets.model import DataSet, Details, Drawing, Files, Tables
from fundus_seg.datasets.raw import RawFile
from fundus_seg.datasets.tables import records
from fundus_seg.protocol import Domain

_NAME = r"(?P<name>RET\d{3}O[DS])"
_EYES = {"OD": "right", "OS": "left"}
_DIAGNOSES = {"0": "normal", "1": "glaucoma", "2": "suspect"}


def _details(find: Tables, cases: Mapping[str, Sequence[RawFile]]) -> Mapping[str, Details]:
    """Patient and eye from names, the diagnosis from a table for each eye, whose first column holds `#002`."""
    diagnoses = {}
    for eye in _EYES:
        path = find(rf"patient_data_{eye}\.xlsx")
        for patient, label in records(path, 0, "Diagnosis") if path else ():
            diagnoses[f"RET{patient.removeprefix('#').zfill(3)}{eye}"] = _DIAGNOSES.get(label, "")
    return {name: Details(name[:-2], _EYES[name[-2:].upper()], diagnoses.get(name.upper(), "")) for name in cases}


def _expert(number: int) -> Drawing:
    return Drawing(
        tuple(
            Files(
                f"{structure} contour",
                f"ExpertsSegmentations/Contours/{{name}}_{structure}_exp{number}.txt",
                (rf"Contours/(?:[^/]+/)*{_NAME}_{structure}_exp{number}\.txt",),
            )
            for structure in ("disc", "cup")
        ),
        outlined,
    )


PAPILA = DataSet(
    name="papila",
    domains=(Domain("papila", "PAPILA", ""),),
    reference="Kovalyk et al., PAPILA: dataset with fundus images and clinical data of both eyes of the same patient "
    "for glaucoma assessment, Scientific Data 2022",
    licence="CC BY 4.0, by other lists (not verified)",
    source="https://doi.org/10.6084/m9.figshare.14798004",
    holds="PapilaDB: FundusImages, ExpertsSegmentations/Contours, and ClinicalData for the diagnoses",
    annotators="two experts on their own, without a consensus",
    verified=False,
    photographs=Files("photograph", "FundusImages/{name}.jpg", (rf"FundusImages/(?:[^/]+/)*{_NAME}\.jpe?g",)),
    drawings={"expert1": _expert(1), "expert2": _expert(2)},
    reader="expert1",
    combined=("expert1", "expert2"),
    splits=("hash",),
    counts={"all": 488},
    details=_details,
    note="The default is the first expert: of two readers there is no majority but their intersection, which is "
    "smaller than what either drew, as the union is larger. The split is of patients, so both eyes stay together.",
)
