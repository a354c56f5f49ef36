"""Photographs of the chosen cases, with the contours of their masks to switch on and off."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fundus_seg.data.dataset import Sample
from fundus_seg.evaluation.records import Evaluation
from fundus_seg.progress import SILENT, Progress
from fundus_seg.reporting.floors import networks
from fundus_seg.reporting.frames import captions_of
from fundus_seg.reporting.page.blocks import Outline, Picture
from fundus_seg.reporting.page.cases import ranked_cases
from fundus_seg.reporting.page.results import Results
from fundus_seg.viz.paths import contour_paths

_LONGEST = 720
"""Pixels of a picture's longer side, at most: so some forty pictures take a few megabytes."""
_QUALITY = 80
_TRUTH = "#ffffff"
_COLOURS = ("#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#f0e442", "#d55e00", "#0072b2", "#999999")
"""Those of Okabe and Ito (2008) in an order in which they show on a retina."""


Predict = Callable[[Evaluation, Sequence[str]], Iterable[tuple[Sample, NDArray[np.bool_]]]]
"""Gives some cases of an evaluation, in the order of their names, and their predicted masks, (2, H, W) each."""


def pictures_of(results: Results, predict: Predict, *, progress: Progress = SILENT) -> list[Picture]:
    """Pictures of `ranked_cases`, each with the truth and what the first run of each operator predicts.

    Masks that other tools made are not among them, since no network here makes them again.

    Args:
        results: what lies on disk.
        predict: predicts cases anew, by the network of an evaluation.
        progress: shows what is done.
    """
    evaluations = networks([run.evaluation for run in results.runs])
    if not evaluations:
        return []
    names = captions_of(results.evaluations)
    numbers = {column: number for number, column in enumerate(names, 1)}
    captions = dict(enumerate(names.values(), 1))
    ranked = ranked_cases(results).drop_duplicates(["holdout", "case"])
    firsts: dict[tuple[str, int], Evaluation] = {}
    for each in sorted(evaluations, key=lambda each: each.meta.run.seed):
        firsts.setdefault((each.meta.run.holdout, numbers[each.meta.column]), each)
    found: list[Picture] = []
    with progress.task("predicting the chosen cases", total=len(firsts)) as advance:
        for holdout, own in ranked.groupby("holdout"):
            cases = own["case"].tolist()
            drawn: dict[str, Drawing] = {}
            for key in (key for key in sorted(firsts) if key[0] == holdout):
                for case, (sample, masks) in zip(cases, predict(firsts[key], cases), strict=True):
                    if case not in drawn:
                        drawn[case] = Drawing(sample.image)
                        drawn[case].add("truth", 0, sample.masks, sample.annotated)
                    drawn[case].add(captions[key[1]], key[1], masks)
                advance()
            for case, rank, overall in zip(cases, own["rank"], own["overall"], strict=True):
                said = f"unseen {holdout}, one of the {rank} cases: mean DSC {overall:.1f} %"
                found.append(drawn[case].picture(str(holdout), case, said, phantom=results.phantom))
    return found


class Drawing:
    """A photograph in the size in which it is shown, to which outlines are added.

    Args:
        image: (H, W, 3) uint8.
    """

    def __init__(self, image: NDArray[np.uint8]) -> None:
        height, width = image.shape[:2]
        scale = min(1.0, _LONGEST / max(height, width))
        self._size = (max(1, round(scale * width)), max(1, round(scale * height)))
        self._shown = Image.fromarray(image).resize(self._size, Image.Resampling.LANCZOS)
        self._outlines: list[Outline] = []

    def add(self, name: str, number: int, masks: NDArray[np.bool_], drawn: Sequence[bool] = (True, True)) -> None:
        """Add the contours of masks.

        Args:
            name: whose masks they are.
            number: their number on the page; 0 of the truth.
            masks: (2, H, W) bool, on the frame of the photograph.
            drawn: whether somebody has drawn disc and cup.
        """
        colour = _COLOURS[(number - 1) % len(_COLOURS)] if number else _TRUTH
        self._outlines.append(Outline(name, number, colour, contour_paths(masks, self._size, drawn)))

    def picture(self, holdout: str, case: str, said: str, *, phantom: bool) -> Picture:
        """The picture, with the fields of `Picture` that are not drawn."""
        written = io.BytesIO()
        self._shown.save(written, format="JPEG", quality=_QUALITY)
        address = f"data:image/jpeg;base64,{base64.b64encode(written.getvalue()).decode()}"
        return Picture(holdout, case, phantom, said, *self._size, address, tuple(self._outlines))
