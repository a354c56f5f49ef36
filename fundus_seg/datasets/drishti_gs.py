"""Drishti-GS1, in the download `Drishti-GS1_files` and its re-packs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fundus_seg.builtins import Split
from fundus_seg.datasets.dofe_split import members
from fundus_seg.datasets.model import DataSet, Details, Drawing, Files, Tables
from fundus_seg.datasets.raw import RawFile
from fundus_seg.datasets.tables import records
from fundus_seg.datasets.truths import soft_pair
from fundus_seg.protocol import Domain

_NAME = r"(?P<name>drishtigs_\d{3})"
_SPLITS: dict[str, Split] = {name[1:]: split for name, split in members("A").items()}  # the official split, too
_DIAGNOSES = {"g": "glaucoma", "n": "normal"}


def _details(find: Tables, cases: Mapping[str, Sequence[RawFile]]) -> Mapping[str, Details]:
    """The patient from `Drishti-GS1_diagnosis.xlsx`; the diagnosis is a letter of the benchmark's names, too."""
    path = find(r"Drishti-GS1_diagnosis\.xlsx")
    patients: dict[str, str] = {}
    if path is not None:
        cells = records(path, "Drishti-GS File", "Patient ID")
        patients = {file.strip("'\" ").removesuffix(".png").casefold(): patient for file, patient in cells if file}
    diagnoses = {name[1:]: _DIAGNOSES[name[0]] for name in members("A")}
    return {name: Details(patients.get(name.casefold(), ""), diagnosis=diagnoses.get(name, "")) for name in cases}


DRISHTI_GS = DataSet(
    name="drishti-gs",
    domains=(Domain("drishti-gs", "Drishti-GS1", ""),),
    reference="Sivaswamy et al., Drishti-GS: retinal image dataset for optic nerve head segmentation, ISBI 2014",
    licence="none in the files; research and academic use, as its pages say",
    source="https://cvit.iiit.ac.in/projects/mip/drishti-gs/mip-dataset2/Home.php",
    holds="Drishti-GS1_files (a .rar file, unpacked, or a re-pack as zip or tar): {Training,Test}/Images, "
    "Training/GT and Test/Test_GT with the folders SoftMap; Drishti-GS1_diagnosis.xlsx names the patients",
    annotators="four glaucoma experts, as soft maps of how many drew each pixel",
    verified=True,
    photographs=Files(
        "photograph",
        "Training/Images/{name}.png or Test/Images/{name}.png",
        (rf"Images/(?:[^/]+/)*{_NAME}\.png",),
    ),
    drawings={
        "experts": Drawing(
            (
                Files("disc map", "SoftMap/{name}_ODsegSoftmap.png", (rf"SoftMap/{_NAME}_ODsegSoftmap\.png",)),
                Files("cup map", "SoftMap/{name}_cupsegSoftmap.png", (rf"SoftMap/{_NAME}_cupsegSoftmap\.png",)),
            ),
            soft_pair,
        )
    },
    reader="experts",
    agreement=3,
    splits=("dofe", "official", "hash"),
    counts={"train": 50, "test": 51},
    names=tuple(sorted(_SPLITS)),
    dofe=_SPLITS,
    official=lambda name, match: _SPLITS.get(name, ""),
    details=_details,
    note="The official split is the benchmark's, and may have the two eyes of one patient on both sides.",
)
