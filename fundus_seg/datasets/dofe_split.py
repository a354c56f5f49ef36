"""The membership of the DoFE archive: which case of the four domains is in which split.

Wang et al., "DoFE: domain-oriented feature embedding for generalizable fundus image segmentation on unseen datasets",
IEEE TMI 2020. The lists are those of the archive; domains 3 and 4 were split at random without a seed, so that nothing
but the lists can tell. Names of Domain1 begin with the diagnosis there, `g` or `n`.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

from fundus_seg.builtins import Split
from fundus_seg.protocol import DOMAINS


@cache
def members(domain: str) -> dict[str, Split]:
    """The split of each case of a domain (`A` to `D`), by its name in the archive, in the order of the lists."""
    lists = json.loads((files("fundus_seg.datasets") / "dofe_split.json").read_text("utf8"))
    splits: tuple[Split, ...] = ("train", "test")
    return {name: split for split in splits for name in lists[DOMAINS[domain].folder][split].split()}
