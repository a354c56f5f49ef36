"""What a page is of besides the results, and what several of its sections need of these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from fundus_seg.evaluation.metric_table import DEFAULT_METRICS
from fundus_seg.evaluation.records import Evaluation
from fundus_seg.evaluation.trusted import TrustedRun
from fundus_seg.reporting.frames import captions_of, labelled
from fundus_seg.reporting.notes import PHANTOM_HEADING
from fundus_seg.reporting.page.blocks import LackingError, Picture, Shown
from fundus_seg.reporting.page.results import Results
from fundus_seg.runs.identity import COLUMN_FIELDS, Column

OPERATOR = Shown("operator", "column")
"""The column of a grid that names the column of the tables."""


@dataclass(frozen=True)
class Asked:
    """What the page is of, besides the results.

    Attributes:
        metrics: keys of `METRICS`.
        trusted: trust measured on the unseen domains.
        pictures: photographs of the chosen cases with their contours.
    """

    metrics: Sequence[str] = DEFAULT_METRICS
    trusted: Sequence[TrustedRun] = ()
    pictures: Sequence[Picture] = ()


def unseen(results: Results) -> list[Evaluation]:
    """The evaluations of unseen domains.

    Raises:
        LackingError: there is none.
    """
    if not results.evaluations:
        raise LackingError("no run here has an unseen domain")
    return results.evaluations


def captioned(frame: pd.DataFrame, evaluations: Sequence[Evaluation] = ()) -> pd.DataFrame:
    """The frame of a report with the captions of its columns, as the report's layout has them.

    Args:
        frame: with COLUMN_FIELDS.
        evaluations: what it is of; they know the labels that the user gave, and how many networks an ensemble has.
    """
    rows = frame[list(COLUMN_FIELDS)].drop_duplicates().itertuples(index=False)
    return labelled(frame, captions_of(evaluations, [Column(*fields) for fields in rows]))


def heading(results: Results) -> str:
    """What the title of every table of the phantom begins with; nothing for one of patients."""
    return PHANTOM_HEADING if results.phantom else ""
