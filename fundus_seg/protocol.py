"""The scoring protocol: everything that makes two scores comparable, and its hash.

Two scores may stand in one table only when their protocols are equal; what the network was trained with (the recipe)
and how its checkpoint was chosen (the selection) are recorded beside the score and never part of the protocol.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fundus_seg.builtins import CheckpointName, Inference, Selection, Views
from fundus_seg.digests import short_hash
from fundus_seg.errors import UsageError

STRUCTURES = ("disc", "cup")
"""Order of the channels of every mask, logit and record; the disc includes the cup."""


@dataclass(frozen=True)
class Domain:
    """A centre: one camera, one hospital, one group of annotators."""

    key: str
    name: str
    folder: str


DOMAINS = {
    domain.key: domain
    for domain in (
        Domain("A", "Drishti-GS", "Domain1"),
        Domain("B", "RIM-ONE r3", "Domain2"),
        Domain("C", "REFUGE training set", "Domain3"),
        Domain("D", "REFUGE validation set", "Domain4"),
    )
}
"""The paper's four domains, by the letter that the paper's table uses."""

NONE_UNSEEN = "none"
"""The holdout of a run that trains on every domain. No domain has this key, in lower or upper case."""

PROTOCOL_VERSION = 2
"""Raised when the same settings would give other numbers: old records then refuse to mix with new ones."""


@dataclass(frozen=True)
class SelectionRule:
    """A rule that chooses the epoch whose weights become `best`.

    Attributes:
        cases: test cases whose mean Dice is maximised: of the source domains' `select` halves, or of the holdout;
            None for a rule that looks at none and takes the last epoch.
        warning: what every table must say of scores that were chosen by it; empty where there is nothing to say.
    """

    cases: Literal["sources", "holdout"] | None
    warning: str = ""


SELECTIONS: dict[Selection, SelectionRule] = {
    "source-validation": SelectionRule("sources"),
    "last": SelectionRule(None),
    "oracle": SelectionRule("holdout", warning="chosen on the scored cases themselves"),
}
"""The rules by name. `oracle` is what the released code does: it leaks."""
_AVERAGE = "-average"
_WARNINGS = {name + of: rule.warning for name, rule in SELECTIONS.items() for of in ("", _AVERAGE)}


def chosen_by(selection: Selection, checkpoint: CheckpointName) -> str:
    """How a checkpoint was chosen in a run of this selection, in a word: records, columns and titles hold it.

    A mean of weights is `average`, whatever it is of, which the recipe says; but where the selection has a warning, it
    keeps the selection's name, and so the warning.
    """
    if checkpoint == "average" and SELECTIONS[selection].warning:
        return selection + _AVERAGE
    return selection if checkpoint == "best" else checkpoint


def warning_of(choice: str) -> str:
    """What every table must say of scores with this word of `chosen_by`; empty where there is nothing to say."""
    return _WARNINGS.get(choice, "")


DEEP_STRIDE = 16
"""How many pixels of a photograph one of the network's deep features stands for, along each side."""

FRAME = 800
"""Side in pixels of the paper's photographs: distances are given as on such a frame, whatever the photograph's own."""

NSD_TOLERANCE = 5.0
"""Distance between two borders, in 800-pixel units, that NSD tolerates. Like the frame it is a constant, not a setting:
whoever changes it changes numbers under the same protocol, and must raise PROTOCOL_VERSION."""


@dataclass(frozen=True)
class BeforeItExisted:
    """Stands in the annotation of a setting that came later: the value that all runs had before it was a setting.

    A run that was recorded without the setting is then read as one of this value, and is still the same run. A scoring
    protocol with this value keeps its digest.
    """

    value: Any


class Scoring(BaseModel):
    """How predictions become masks and masks become numbers."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    inference: Inference = "resize"
    """resize: the network sees the training size, its logits go up bilinearly to the photograph's own frame; native: it
    sees the photograph at its own size, and so eyes at a scale that it was not trained on."""
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.75
    """A pixel belongs to a structure if its probability is above this."""
    largest_component: bool = True
    """Whether only the largest connected component of each predicted mask is kept."""
    fill_holes: bool = True
    """Whether holes in predicted masks are filled."""
    dice_smoothing: Annotated[float, Field(ge=0)] = 0.0
    """s in (2I + s) / (P + G + s): 0 is the exact Dice coefficient, 1 that of the released code."""
    empty_check: Literal["own", "cup"] = "own"
    """Mask whose emptiness leaves a structure's distances undefined: its own, or also the cup's, as in the released
    code."""
    empty_distance: Annotated[float, Field(ge=0)] = 100.0
    """Distance, in 800-pixel units, that tables count for an empty prediction."""
    adapt_batch_norms: Annotated[Annotated[int, Field(ge=0)] | None, BeforeItExisted(None)] = None
    """Before a domain is scored, batch norms adapt to all its photographs at the training size, which is transductive:
    number of photographs that the source's statistics count as beside them, 0 for none; null: norms do not adapt."""

    anatomical: Annotated[bool, BeforeItExisted(False)] = False
    """Whether predicted masks are made anatomical: the cup in the disc, each in one piece, without holes, within a
    smooth closed outline."""

    @property
    def warning(self) -> str:
        """What every table must say of scores by this protocol; empty where there is nothing to say."""
        adapting = "transductive: batch norms adapted to the photographs of the domain that is scored"
        return "" if self.adapt_batch_norms is None else adapting

    @property
    def for_any_masks(self) -> bool:
        """Whether masks of another tool can be scored by it: no network has to adapt, or to predict with others."""
        return self.adapt_batch_norms is None

    def recorded(self) -> dict[str, Any]:
        """The settings as JSON, without those that came later and have the value from before they existed."""
        earlier = {
            name
            for name, field in type(self).model_fields.items()
            if BeforeItExisted(getattr(self, name)) in field.metadata
        }
        return self.model_dump(mode="json", exclude=earlier)

    def digest(self) -> str:
        """Eight hexadecimal digits that name this protocol in file names and tables."""
        return short_hash({"version": PROTOCOL_VERSION, **self.recorded()})


class Combination(Scoring):
    """A protocol in which the prediction of a photograph is the mean of several.

    The mean is that of the probabilities, pixel by pixel in the photograph's own frame. The threshold and the
    post-processing follow it. `combined` makes these protocols: one that averages nothing is a plain `Scoring`.
    """

    ensemble: bool = False
    """Whether the networks of several runs, which differ in their seed alone, predict together."""
    views: Views = "none"
    """flip: each network also sees the photograph's left-right mirror image, and what it predicts is mirrored back."""

    @property
    def for_any_masks(self) -> bool:
        """No: several predictions are made anew, and those of another tool are there already."""
        return False


class ByReader(Combination):
    """A protocol in which the truth is what each reader drew, one after another, and not what they make together.

    Its scores and those against the merged truth never stand in one table.
    """

    by_reader: Literal[True] = True
    """Whether each reader's own masks are the truth."""

    @property
    def for_any_masks(self) -> bool:
        """No: masks of another tool are scored against one truth."""
        return False


def by_reader(scoring: Scoring) -> ByReader:
    """The protocol that differs from this one in its truth alone."""
    plain = {name: getattr(scoring, name) for name in Combination.model_fields if hasattr(scoring, name)}
    return ByReader(**plain)


def combined(scoring: Scoring, *, ensemble: bool = False, views: Views | None = None) -> Scoring:
    """The protocol by which several predictions of a photograph are scored as one.

    Args:
        scoring: the protocol of a single prediction, or of several.
        ensemble: whether several networks predict together.
        views: further views of a photograph; None: those of `scoring`.

    Returns:
        A plain `Scoring`, which keeps its digest, where nothing is averaged.
    """
    views = views or (scoring.views if isinstance(scoring, Combination) else "none")
    plain = {name: getattr(scoring, name) for name in Scoring.model_fields}
    if ensemble or views != "none":
        return Combination(**plain, ensemble=ensemble, views=views)
    return Scoring(**plain)


def check_side(name: str, side: int) -> None:
    """Refuse a height or width in pixels that the network cannot take.

    Raises:
        UsageError: `side`, named by `name`, is not a positive multiple of 16.
    """
    if side < DEEP_STRIDE or side % DEEP_STRIDE:
        near = max(1, round(side / DEEP_STRIDE)) * DEEP_STRIDE
        raise UsageError(f"{name} {side} is not a multiple of {DEEP_STRIDE}: {near} is")


def spacing(height: int, width: int) -> tuple[float, float]:
    """Row and column pitch that makes distances on a height x width frame read in 800-pixel units."""
    return FRAME / height, FRAME / width


def source_half(subject: str) -> Literal["select", "calibrate"]:
    """The half of a source domain's test split that a case belongs to, by a hash of its patient.

    `select` chooses checkpoints; `calibrate` is kept for in-domain scores and temperatures. A case never changes its
    half when others are added, and no score is ever reported on cases, or on other eyes of patients, that chose the
    checkpoint.

    Args:
        subject: the patient, or the name of the case where the patient is not known (`data.files.Case.subject`).
    """
    return "select" if hashlib.sha256(subject.encode()).digest()[0] % 2 == 0 else "calibrate"
