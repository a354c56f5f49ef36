"""The steps that each photograph goes through: it is read, the networks see it, its files are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fundus_seg.data import dicom, listing
from fundus_seg.data.box import Box
from fundus_seg.data.identifiers import Naming
from fundus_seg.data.io import write_mask, write_probability
from fundus_seg.data.mask_files import MaskFiles
from fundus_seg.data.witness import Witness
from fundus_seg.errors import DataError, about
from fundus_seg.inference.case_rows import row_of, texts_of, unreadable_row
from fundus_seg.inference.output import Output
from fundus_seg.inference.plan import inputs_of
from fundus_seg.inference.roi import NOWHERE, Region, Roi
from fundus_seg.inference.truths import read_pair
from fundus_seg.protocol import STRUCTURES
from fundus_seg.runs.atomic import atomic_path
from fundus_seg.viz.overlay import draw_overlay, save_picture

if TYPE_CHECKING:
    from fundus_seg.inference.localise import Localiser
    from fundus_seg.inference.predict import Segmenter
    from fundus_seg.inference.watched import Judge

_BYTES_PER_VALUE, _BYTES_PER_SEEN = 12, 4
"""Bytes of a photograph on its way for each value of its pixels; and, of several networks, for each value that one of
them sees: the value, and the logits."""


@dataclass
class Photograph:
    """A photograph on its way, and what is known of it so far.

    Attributes:
        name: its name.
        path: its file.
        image: its pixels (H, W, 3).
        true: its true masks (2, H, W).
        region: the part of it that is predicted.
        seen: what the network sees (h, w, 3).
        inputs: what stands for its files.
        header: what its DICOM file says of it.
        logits: of the network (2, h, w).
        raw: the masks (2, h, w) of its region before post-processing.
        row: its row.
        problem: why it cannot be used; it then goes on to its place in the order, and nothing is done.
    """

    name: str
    path: Path
    image: Any = None
    true: Any = None
    region: Region = NOWHERE
    seen: Any = None
    inputs: str | None = None
    header: dicom.Header | None = None
    logits: Any = None
    raw: Any = None
    row: Mapping[str, Any] = field(default_factory=dict)
    problem: DataError | None = None

    @property
    def unreadable(self) -> bool:
        """Whether what is wrong is the photograph itself, and not its true mask: it then gets a row that says so."""
        return self.problem is not None and all(each.path == self.path for each in self.problem.problems)

    @property
    def box(self) -> Box | None:
        """What is predicted of it; None if nothing is."""
        return self.region.box if self.problem is None else None

    @property
    def frame(self) -> tuple[int, int]:
        """Height and width of that."""
        return (self.region.box.height, self.region.box.width) if self.region.box else (0, 0)

    @property
    def size(self) -> int:
        """The bytes that it takes on its way; several networks and views take more than a single one."""
        several = [each for views in self.seen for each in views] if isinstance(self.seen, list) else []
        return int(self.image.size) * _BYTES_PER_VALUE + _BYTES_PER_SEEN * sum(each.nbytes for each in several)


@dataclass(frozen=True)
class Steps:
    """What the steps need, the same for all photographs of one command.

    Attributes:
        output: where masks and overlays go.
        truths: the true masks.
        predictor: what predicts.
        judge: says how far its predictions can be trusted, if that is calibrated.
        phantom: whether a network of it was trained on the phantom, and its photographs' rows are to warn of that.
        roi: which part of each photograph is predicted.
        localiser: finds the disc, if that is asked for and the model says how its photographs were framed.
        naming: how the identifiers in DICOM files are named; None: no photograph is DICOM.
    """

    output: Output
    truths: MaskFiles | None
    predictor: Segmenter
    judge: Judge | None
    phantom: bool
    roi: Roi
    localiser: Localiser | None
    naming: Naming | None

    def read(self, name: str, path: Path, witness: Witness) -> Photograph:
        """Read a photograph and its true mask, and prepare what the networks see of it."""
        inputs = inputs_of(name, path, self.truths)
        try:
            image, true = read_pair(name, path, self.truths, witness)
            region = self.roi.region(name, image, self.predictor.framing, self.localiser)
            seen = region.box and self.predictor.prepare(region.cut(image))
            header = dicom.read_header(path) if self.naming and listing.is_dicom(path) else None
            return Photograph(name, path, image, true, region, seen, inputs, header)
        except DataError as error:
            return Photograph(name, path, inputs=inputs, problem=error)

    def compute(self, group: Sequence[Photograph]) -> Sequence[Photograph]:
        """Let the networks see a batch of photographs."""
        if sound := [each for each in group if each.box]:
            self._see(sound)
        for each in sound:
            if each.problem is None and each.region.otherwise:
                self._choose_region(each)
        return group

    def finish(self, each: Photograph) -> Photograph:
        """Make the masks of a photograph, measure them, and write its files; its pixels are then let go."""
        if each.problem is None:
            masks = self._masks(each)
            true = None if each.true is None else each.region.whole_truth(each.true)
            trusted = self.judge(each.logits) if self.judge and masks else None
            each.row = row_of(
                each.path,
                each.image,
                masks and masks[0],
                true,
                region=each.region,
                framing=self.predictor.framing,
                phantom=self.phantom,
                inputs=each.inputs,
                raw=each.raw,
                trusted=trusted,
                header=each.header,
                name=self.naming.name if self.naming else str,
            )
            if masks:
                self._write(each, *masks)
        elif each.unreadable:
            each.row = unreadable_row(each.path, each.problem.problems, each.inputs)
        each.image = each.true = each.seen = each.logits = each.raw = None  # what waits now holds no pixels
        return each

    def _see(self, photographs: Sequence[Photograph]) -> None:
        try:
            with about(photographs[0].path):
                seen = [each.seen for each in photographs]
                logits = self.predictor.logits_of_batch(seen, photographs[0].frame)
        except DataError as error:
            for each in photographs:
                each.problem, each.inputs = error, None  # so that it is tried again
        else:
            for each, own in zip(photographs, logits, strict=True):
                each.logits = own

    def _choose_region(self, photograph: Photograph) -> None:
        """Predict the other region of a photograph if the networks draw no disc in the first that is framed right."""
        raw = self.predictor.framed(photograph.logits, photograph.frame)
        disc = self.predictor.clean(raw)[0]
        photograph.region = photograph.region.confirmed(disc, self.predictor.framing, raw[0])
        if photograph.region.otherwise is None:
            photograph.seen = self.predictor.prepare(photograph.region.cut(photograph.image))
            self._see([photograph])

    def _masks(self, photograph: Photograph) -> tuple[NDArray[np.bool_], NDArray[np.float32] | None] | None:
        """The masks (2, H, W) of a whole photograph, and its probabilities if they are kept; None without a region."""
        box = photograph.box
        if box is None:
            return None
        frame, whole = photograph.frame, photograph.image.shape
        kept = np.empty((len(STRUCTURES), *frame), np.float32) if self.output.probabilities else None
        photograph.raw = self.predictor.framed(photograph.logits, frame, kept)
        masks = self.predictor.clean(photograph.raw)
        photograph.region = photograph.region.confirmed(masks[0], self.predictor.framing, photograph.raw[0])
        region = photograph.region
        if region.box is None:
            return None
        return region.whole(masks, whole), None if kept is None else region.whole(kept, whole)

    def _write(
        self, photograph: Photograph, masks: NDArray[np.bool_], probabilities: NDArray[np.float32] | None
    ) -> None:
        """Write the files of one photograph."""
        name, like, output = photograph.name, photograph.path, self.output
        with atomic_path(output.mask(name)) as temporary:
            write_mask(temporary, masks, output.form, like=like)
        for structure, probability in zip(STRUCTURES, () if probabilities is None else probabilities, strict=False):
            with atomic_path(output.probability(name, structure)) as temporary:
                write_probability(temporary, probability, output.form, like=like)
        if output.overlay:
            written = photograph.region.shown(np.stack([masks[0], masks[0] & masks[1]]))
            texts = texts_of(photograph.row)
            drawing = draw_overlay(photograph.image, written, photograph.true, name=name, texts=texts)
            save_picture(drawing, output.picture(name, output.overlay), output.overlay)
