"""REFUGE (the challenge of 2018): its training, validation and test sets, in the original downloads and re-packs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from fundus_seg.builtins import Split
from fundus_seg.datasets.dofe_split import members
from fundus_seg.datasets.model import DataSet, Details, Drawing, Files, ReadDetails, Tables
from fundus_seg.datasets.raw import RawFile
from fundus_seg.datasets.tables import records
from fundus_seg.datasets.truths import coded
from fundus_seg.protocol import Domain

_LABELS = {"0": "normal", "1": "glaucoma"}
_CLASSES = {"N": "normal", "G": "glaucoma"}
_CLASS_FOLDER = re.compile(r".*/Disc_Cup_Masks/([GN])/[^/]+", re.IGNORECASE)


def _by_prefix(find: Tables, cases: Mapping[str, Sequence[RawFile]]) -> Mapping[str, Details]:
    """Names of the training set begin with the diagnosis, `g` or `n`."""
    return {name: Details(diagnosis="glaucoma" if name.startswith("g") else "normal") for name in cases}


def _by_table(file: str, name_column: str, label_column: str) -> ReadDetails:
    """A reader of the diagnoses in a table; without it, they are those of the masks' folders `G` and `N`, if any."""

    def details(find: Tables, cases: Mapping[str, Sequence[RawFile]]) -> Mapping[str, Details]:
        path = find(file)
        if path is None:
            classes = {name: _CLASS_FOLDER.fullmatch(files[-1].path) for name, files in cases.items()}
            return {name: Details(diagnosis=_CLASSES[match[1].upper()]) for name, match in classes.items() if match}
        rows = records(path, name_column, label_column)
        return {Path(name).stem: Details(diagnosis=_LABELS.get(label, "")) for name, label in rows if name}

    return details


def _refuge(
    part: str,
    title: str,
    letters: str,
    names: tuple[str, ...],
    photographs: str,
    masks: str,
    details: ReadDetails,
    *,
    dofe: Mapping[str, Split],
) -> DataSet:
    name = rf"(?P<name>[{letters}]\d{{4}})"
    return DataSet(
        name=f"refuge-{part}",
        domains=(Domain(f"refuge-{part}", title, ""),),
        reference="Orlando et al., REFUGE Challenge, Medical Image Analysis 2020",
        licence="research use, after registration at Grand Challenge",
        source="https://refuge.grand-challenge.org",
        holds=f"{photographs} and {masks}, as zip files (REFUGE2.zip holds them, too) or unpacked; or the re-packs of "
        "Kaggle, victorlemosml/refuge2 and arnavjain1/glaucoma-datasets",
        annotators="seven experts, merged by majority and reviewed by an eighth",
        verified=True,
        photographs=Files(
            "photograph",
            f"{photographs}/{{name}}.jpg",
            (rf"{name}\.jpe?g",),
        ),
        drawings={
            "consensus": Drawing(
                (
                    Files(
                        "mask",
                        f"{masks}/Disc_Cup_Masks/{{name}}.bmp",
                        (
                            rf"Disc_Cup_Masks/(?:[^/]+/)*{name}\.(?:bmp|png)",
                            rf"(?:gts|mask)/(?:[^/]+/)*{name}\.(?:bmp|png)",
                            rf"Masks/(?:[^/]+/)*{name}\.(?:bmp|png)",
                        ),
                    ),
                ),
                coded,
            )
        },
        reader="consensus",
        splits=("dofe", "hash") if dofe else ("hash",),
        dofe=dofe,
        counts={"all": 400},
        names=names,
        excluded=r"AMD/.*|(?:Images|Masks)_(?:Cropped|Square)/.*|REFUGE2/Validation/Images/.*|refuge2-test/.*",
        details=details,
        note="The official split is of the three sets of 400, each of which is a domain here; so a split of one set is "
        "the benchmark's, or one by names.",
    )


def _numbered(letter: str, last: int) -> tuple[str, ...]:
    return tuple(f"{letter}{number:04d}" for number in range(1, last + 1))


REFUGE_TRAIN = _refuge(
    "train",
    "REFUGE training set",
    "gn",
    (*_numbered("g", 40), *_numbered("n", 360)),
    "Training400",
    "Annotation-Training400",
    _by_prefix,
    dofe=members("C"),
)
REFUGE_VAL = _refuge(
    "val",
    "REFUGE validation set",
    "V",
    _numbered("V", 400),
    "REFUGE-Validation400",
    "REFUGE-Validation400-GT",
    _by_table(r"(?:REFUGE-Validation400-GT|REFUGE1-val)/(?:[^/]+/)*Fovea_locations\.xlsx", "ImgName", "Glaucoma Label"),
    dofe=members("D"),
)
REFUGE_TEST = _refuge(
    "test",
    "REFUGE test set",
    "T",
    _numbered("T", 400),
    "Test400",
    "REFUGE-Test-GT",
    _by_table(r"Glaucoma_label_and_Fovea_location\.xlsx", "ImgName", "Label(Glaucoma=1)"),
    dofe={},
)
