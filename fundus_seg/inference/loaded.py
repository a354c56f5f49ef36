"""The networks of a command, loaded, with what judges their predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fundus_seg.builtins import Precision, Views
from fundus_seg.data.identifiers import Naming
from fundus_seg.data.mask_files import MaskFiles
from fundus_seg.errors import RunError, UsageError
from fundus_seg.inference.members import Member
from fundus_seg.inference.output import Output
from fundus_seg.inference.roi import Roi
from fundus_seg.inference.steps import Steps
from fundus_seg.inference.trust_file import TrustCalibration, trust_of
from fundus_seg.progress import SILENT, Progress
from fundus_seg.runs.folder import RunFolder
from fundus_seg.runs.model_names import STARTER_FILE
from fundus_seg.runs.record import saw_phantom

if TYPE_CHECKING:
    from fundus_seg.inference.predict import Segmenter
    from fundus_seg.inference.watched import Judge


@dataclass(frozen=True)
class Loaded:
    """Networks that predict together.

    Attributes:
        predictor: what predicts.
        judge: says how far its predictions can be trusted, if that is calibrated.
        phantom: whether a network of it was trained on the phantom, and rows of other photographs are to warn of that.
    """

    predictor: Segmenter
    judge: Judge | None
    phantom: bool

    def steps(
        self, output: Output, roi: Roi, *, truths: MaskFiles | None = None, naming: Naming | None = None
    ) -> Steps:
        """The steps of photographs whose files go to `output`; the other arguments are those of `Steps`.

        Raises:
            CheckpointError: the disc is to be found, and the weights for that are missing or damaged.
        """
        from fundus_seg.inference.localise import localiser

        find = localiser() if roi.kind == "auto" and self.predictor.framing else None
        return Steps(output, truths, self.predictor, self.judge, self.phantom, roi, find, naming)


def trust_for(
    members: Sequence[Member], other: str, decline_below: float | None, progress: Progress
) -> TrustCalibration | None:
    """The trust calibration of the networks; None with an option that makes other masks than it was made of.

    Args:
        members: the networks.
        other: such an option; empty without one.
        decline_below: the predicted DSC below which photographs are declined; None: none is.
        progress: told of a calibration that the option leaves unused.

    Raises:
        RunError: a trust.json is damaged.
        UsageError: photographs are to be declined by trust, and it is not calibrated.
    """
    trust = trust_of(members)
    if trust and other:
        progress.line(f"trust is calibrated without {other}, so these predictions have no columns of trust")
        trust = None
    if trust is None and decline_below is not None:
        raise UsageError(
            "--decline-below needs a calibrated trust: `fundus-seg calibrate` the run, with --ensemble for several "
            "runs that predict together, and leave --views and --anatomical out"
        )
    return trust


def load_networks(
    members: Sequence[Member],
    trust: TrustCalibration | None,
    *,
    views: Views = "none",
    precision: Precision = "fp32",
    anatomical: bool = False,
    decline_below: float | None = None,
    progress: Progress = SILENT,
) -> Loaded:
    """Load what `find_members` has found, once the arguments of the command are known to be right.

    Args:
        members: the networks.
        trust: their trust calibration, as `trust_for` gives it.
        views: which further views of a photograph they see.
        precision: what they compute in.
        anatomical: whether masks are made anatomical.
        decline_below: as in `trust_for`.
        progress: told what is to be known of the networks.

    Raises:
        RunError, CheckpointError, UsageError: as `load_members`.
    """
    from fundus_seg.inference.ensemble import load_members  # imports torch
    from fundus_seg.inference.watched import Judge, Watched

    starter = any(member.checkpoint == STARTER_FILE for member in members)
    if starter:
        progress.line(
            "starter: drawn eyes trained it, no patient's; docs/starter.md says what was measured on real ones. "
            "Research software, not a medical device"
        )
    loaded = load_members(members, views=views, precision=precision, progress=progress)
    if anatomical:
        loaded.scoring = loaded.scoring.model_copy(update={"anatomical": True})
    watched = Watched(loaded) if trust else None
    judge = Judge(watched, trust, [each.digest for each in members], decline_below) if watched and trust else None
    predictor = watched or loaded
    if predictor.scoring.adapt_batch_norms is not None:
        progress.line("scoring.adapt_batch_norms is for scores alone; these masks are made without it")
    return Loaded(predictor, judge, not starter and _of_phantom(predictor, members))


def _of_phantom(predictor: Segmenter, members: Sequence[Member]) -> bool:
    """Whether a network was trained on the phantom, which a run of an older version tells but not its checkpoint."""

    def recorded(member: Member) -> bool:
        try:
            return saw_phantom(RunFolder(member.path).read_config())
        except RunError:  # a checkpoint alone
            return False

    return any(map(recorded, members)) if predictor.phantom is None else predictor.phantom
