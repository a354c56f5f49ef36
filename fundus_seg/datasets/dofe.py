"""The DoFE archive, in which the four domains are cropped already: its files are copied, its membership is asserted."""

from __future__ import annotations

import re

from fundus_seg.builtins import Split
from fundus_seg.datasets.dofe_split import members
from fundus_seg.datasets.model import DataSet, Drawing, Files
from fundus_seg.datasets.truths import coded
from fundus_seg.protocol import DOMAINS

_MEMBERS: dict[str, Split] = {name: split for domain in DOMAINS for name, split in members(domain).items()}
_DOMAIN_OF = {name: domain for domain in DOMAINS for name in members(domain)}
_PLACE = r"(?P<domain>Domain[1-4])/(?P<split>train|test)/(?:[^/]+/)*?(?:disc_cup_)?ROIs"


def _official(name: str, match: re.Match[str]) -> Split:
    return "train" if match["split"].lower() == "train" else "test"


def _misplaced(name: str, match: re.Match[str]) -> str:
    """Why a case does not lie where the archive has it; empty if it does."""
    expected = f"{DOMAINS[_DOMAIN_OF[name]].folder}/{_MEMBERS[name]}"
    found = f"Domain{match['domain'][-1]}/{match['split'].lower()}"
    return "" if found == expected else f"in {found}, though the archive has it in {expected}"


DOFE = DataSet(
    name="dofe",
    domains=tuple(DOMAINS.values()),
    reference="Wang et al., DoFE: domain-oriented feature embedding for generalizable fundus image segmentation on "
    "unseen datasets, IEEE TMI 2020",
    licence="none found; the terms of Drishti-GS1, RIM-ONE r3 and REFUGE hold for their photographs",
    source="https://github.com/emma-sjwang/Dofe (Google Drive)",
    holds="Fundus/Domain1..4/{train,test}/ROIs/{image,mask}, zipped or unpacked",
    annotators="those of the four sets; how the archive merged them is not published",
    verified=True,
    photographs=Files("photograph", "ROIs/image/{name}.png", (rf"{_PLACE}/image/(?P<name>[^/]+)\.png",)),
    drawings={
        "archive": Drawing(
            (Files("mask", "ROIs/mask/{name}.png", (rf"{_PLACE}/mask/(?P<name>[^/]+)\.png",)),),
            coded,
        )
    },
    reader="archive",
    splits=("dofe",),
    dofe=_MEMBERS,
    counts={
        f"{domain.folder}/{split}": list(members(key).values()).count(split)
        for key, domain in DOMAINS.items()
        for split in ("train", "test")
    },
    names=tuple(sorted(_MEMBERS)),
    official=_official,
    domain_of=_DOMAIN_OF.__getitem__,
    misplaced=_misplaced,
    as_is=True,
    note="Whole photographs beside the folders ROIs are left out.",
)
