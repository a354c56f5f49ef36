"""Public data sets: from the raw download of each to domains with photographs, masks, a manifest and a data sheet.

How to add a set: write one module that declares a `DataSet` (`model.py` says what each of its attributes means), and
add it to `SETS` below. A declaration holds

- what the set is: reference, licence as found, where to get it, what the download must hold, the published counts, who
  annotated it, and whether the layout was verified in real files or read in other people's loaders;
- `photographs`: the regular expression of their paths, which gives each case its name. It is matched with the end of
  a path, from the name of a folder or file on, in upper and lower case alike, so that any folders may lie above;
- `drawings`: for each reader, the files of the truth and the function that reads them. `truths.py` has such functions
  for one coded file, for two binary files and for soft maps, `contours.py` for contours and polygons, `matlab.py` for
  `.mat` files; a new kind is one more function (files, frame, rules) ->
  (2, H, W) bool, or (1, H, W) where nobody annotated the cup: the case is then one of the disc alone, which the
  manifest and the domain file say. Readers in `combined` can be put together by `--reader majority|union|intersection|
  staple`, or kept apart by `--reader all`;
- where there are any: the names of all cases, the official split, the benchmark's, and what tables say of the cases.

Everything else is shared: `raw.py` lists folders and archives, `finding.py` matches, pairs and counts the files,
`case.py` crops and writes a case, `sheets.py` writes what lies beside, `prepare.py` runs them. A set needs a test with
a tree of its published names (`tests/test_datasets_*.py`), one case for each quirk.
"""

from __future__ import annotations

from fundus_seg.datasets.chaksu import CHAKSU
from fundus_seg.datasets.dofe import DOFE
from fundus_seg.datasets.drions import DRIONS
from fundus_seg.datasets.drishti_gs import DRISHTI_GS
from fundus_seg.datasets.g1020 import G1020
from fundus_seg.datasets.gamma import GAMMA
from fundus_seg.datasets.model import DataSet
from fundus_seg.datasets.origa import ORIGA
from fundus_seg.datasets.papila import PAPILA
from fundus_seg.datasets.refuge import REFUGE_TEST, REFUGE_TRAIN, REFUGE_VAL
from fundus_seg.datasets.rim_one_dl import RIM_ONE_DL
from fundus_seg.datasets.rim_one_r3 import RIM_ONE_R3
from fundus_seg.errors import UsageError, unknown_name

SETS: dict[str, DataSet] = {
    dataset.name: dataset
    for dataset in (
        *(DRISHTI_GS, RIM_ONE_R3, REFUGE_TRAIN, REFUGE_VAL, REFUGE_TEST, DOFE),
        *(RIM_ONE_DL, ORIGA, G1020, PAPILA, CHAKSU, GAMMA, DRIONS),
    )
}
"""The sets by name, in the order in which they are listed."""


REFUSED: dict[str, str] = {
    "riga": "it has no masks: the contours of its six readers are burnt into copies of the photographs. Masks drawn "
    "from these are public (RIGA_masks.zip of github.com/mohaEs/RIGA-segmentation-masks, and RIGA+): describe their "
    "folders in a YAML file, as docs/domains.md says",
    "rim-one-r1": "it has the disc alone. Take rim-one-dl, which has photographs of this release with disc and cup",
    "rim-one-r2": "it has the disc alone. Take rim-one-dl, which has photographs of this release with disc and cup",
}
"""Known sets that are not prepared, and why; each text goes on after the name and a colon."""


def data_set(name: str) -> DataSet:
    """The data set of a name.

    Raises:
        UsageError: there is no such set, and the error gives the nearest name; or it cannot be prepared, and why.
    """
    if name in REFUSED:
        raise UsageError(f"{name}: {REFUSED[name]}")
    if name not in SETS:
        raise UsageError(unknown_name("data set", name, SETS))
    return SETS[name]
