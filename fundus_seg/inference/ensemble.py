"""Several predictions of one photograph as one: those of several networks, and those of its mirror image.

What is averaged are probabilities, pixel by pixel in the photograph's own frame, so networks of different training
sizes and operators can predict together. The mean over networks that differ in their seed is a deep ensemble
(Lakshminarayanan et al., 2017, doi.org/10.48550/arXiv.1612.01474).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fundus_seg.builtins import Precision, Views
from fundus_seg.data.framing import Framing
from fundus_seg.errors import UsageError
from fundus_seg.inference import predict
from fundus_seg.inference.members import Member, find_members, warn_of_mirroring
from fundus_seg.inference.predict import Predictor, Segmenter
from fundus_seg.progress import SILENT, Progress
from fundus_seg.protocol import Scoring

_FIX = "leave one of the two out"
_Seen = Sequence[Sequence[NDArray[np.uint8]]]
"""What the networks see of one photograph: of each member each view of it."""
_Logits = Sequence[Sequence[Tensor]]
"""The logits of one photograph: of each member each view of it."""


class Ensemble(Segmenter):
    """Networks that predict together, each from one or two views of a photograph.

    A mirrored photograph is predicted as any photograph is, and its probabilities are mirrored back. So the mirror
    image of a photograph has the mirrored mask, to the bit.

    Args:
        members: the networks. They have one scoring protocol.
        views: which further views of a photograph they see.

    Raises:
        ValueError: the members have different protocols.
    """

    def __init__(self, members: Sequence[Predictor], *, views: Views = "none") -> None:
        self.members = tuple(members)
        self.scoring = self.members[0].scoring
        if any(member.scoring != self.scoring for member in self.members):
            raise ValueError("the members of an ensemble have one scoring protocol")
        self.mirrored = (False, True) if views == "flip" else (False,)
        self.phantom = _any(member.phantom for member in self.members)
        self.framing = _common_framing(self.members)

    @property
    def calibrated(self) -> bool:
        """Whether every member has temperatures: the mean of some that do and others that do not is neither."""
        return all(member.calibrated for member in self.members)

    @property
    def batch(self) -> int:
        """How many photographs every member can see at a time."""
        return min(member.batch for member in self.members)

    @property
    def threads(self) -> int:
        """How many of the processor's cores a member takes while it works; they work one after the other."""
        return max(member.threads for member in self.members)

    def prepare(self, image: NDArray[np.uint8]) -> _Seen:
        """What the members see of a photograph (H, W, 3) uint8; members that see the same share it.

        Raises:
            ValueError: the photograph is not such an array.
        """
        made: dict[Any, Sequence[NDArray[np.uint8]]] = {}
        for member in self.members:
            if member.sees not in made:
                made[member.sees] = [member.prepare(_mirrored(image) if flip else image) for flip in self.mirrored]
        return [made[member.sees] for member in self.members]

    def logits_of_batch(self, images: Sequence[_Seen], frame: Sequence[int]) -> Sequence[_Logits]:
        """The logits of at most `batch` photographs, as `Segmenter.logits_of_batch` says."""
        views = range(len(self.mirrored))
        logits = [
            [member.logits_of_batch([image[place][view] for image in images], frame) for view in views]
            for place, member in enumerate(self.members)
        ]
        return [[[batch[number] for batch in views] for views in logits] for number in range(len(images))]

    def probability(
        self, logits: _Logits, frame: Sequence[int], structure: int, *, calibrated: bool = False
    ) -> NDArray[np.float32]:
        """The mean (H, W) over members and views of one structure's probability, in a photograph's frame (H, W)."""
        total = np.zeros(tuple(frame), np.float32)
        for member, views in zip(self.members, logits, strict=True):
            found = [member.probability(view, frame, structure, calibrated=calibrated) for view in views]
            both = [_mirrored(each) if flip else each for each, flip in zip(found, self.mirrored, strict=True)]
            total += sum(both)  # of both views first: in either order they have the same sum, to the bit
        return total / np.float32(len(self.members) * len(self.mirrored))


def load_ensemble(
    models: Sequence[str | Path],
    *,
    views: Views = "none",
    precision: Precision = "fp32",
    progress: Progress = SILENT,
) -> Segmenter:
    """Load networks that predict together, or one that sees several views of a photograph.

    Args:
        models: folders of runs, folders with runs below, and checkpoint files, in any order.
        views: which further views of a photograph the networks see.
        precision: as in `Predictor`.
        progress: told which networks they are, and warned of those for which a view may be unsound.

    Returns:
        The network's own `Predictor` where nothing is averaged, else an `Ensemble`.

    Raises:
        RunError, CheckpointError: as `load_model`.
        UsageError: a network is given twice, or networks do not fit together.
    """
    members = find_members(models, progress=progress)
    return load_members(members, views=views, precision=precision, progress=progress)


def load_members(
    members: Sequence[Member], *, views: Views, precision: Precision, progress: Progress = SILENT
) -> Predictor | Ensemble:
    """Load what `find_members` has found; arguments and errors are those of `load_ensemble`."""
    loaded = [predict.load_model(member.path, precision=precision) for member in members]
    if len(loaded) == 1 and views == "none":
        return loaded[0]
    first = loaded[0]
    for member, own in zip(members, loaded, strict=True):
        if differing := differences(first.scoring, own.scoring):
            raise UsageError(f"{member.path}: does not fit together with {members[0].path} ({differing}); {_FIX}")
        if first.framing and own.framing and _common_framing([first, own]) is None:
            raise UsageError(f"{member.path}: trained on other framings of the disc than {members[0].path}; {_FIX}")
        if None not in (own.phantom, first.phantom) and own.phantom != first.phantom:
            raise UsageError(
                f"{member.path}, {members[0].path}: one was trained on the phantom, the other on patients' photographs"
                f"; {_FIX}"
            )
    if views == "flip":
        warn_of_mirroring((own.one_sided for own in loaded), progress)
    return Ensemble(loaded, views=views)


def differences(one: Scoring, other: Scoring) -> str:
    """How two protocols differ, each setting with both values; empty where they do not."""
    return ", ".join(
        f"{name} {getattr(one, name)} there, {value} here"
        for name, value in other.model_dump().items()
        if value != getattr(one, name)
    )


def _mirrored(pixels: NDArray[Any]) -> NDArray[Any]:
    """The left-right mirror image of (H, W) or (H, W, C)."""
    return np.ascontiguousarray(pixels[:, ::-1])


def _any(values: Any) -> bool | None:
    """Whether one is true; None where none is and one is not known."""
    known = list(values)
    return True if True in known else None if None in known else False


def _common_framing(members: Sequence[Predictor]) -> Framing | None:
    """The framing that every member was trained on; None where there is none, or where it is not known of one."""
    known = [member.framing for member in members if member.framing is not None]
    low, high = max((each.low for each in known), default=1), min((each.high for each in known), default=0)
    return Framing(low, high) if len(known) == len(members) and low <= high else None
