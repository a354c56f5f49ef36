"""Which part of a photograph the networks see: `--roi auto`, `full`, `X,Y,W,H` or a table of such boxes."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from fundus_seg.data.box import Box
from fundus_seg.data.crop import Crop, from_row
from fundus_seg.data.field import shows_border
from fundus_seg.data.framing import WHOLE, Framing, disc_framing
from fundus_seg.data.limits import MAX_PIXELS
from fundus_seg.data.listing import PHOTOGRAPHS
from fundus_seg.data.names import key, matched, stem, suffix_of
from fundus_seg.digests import file_digest
from fundus_seg.errors import DataError, UsageError
from fundus_seg.metrics.anatomy import is_one_piece
from fundus_seg.metrics.photograph import is_of_one_colour

if TYPE_CHECKING:
    from fundus_seg.inference.localise import FoundDisc

How = Literal["full", "auto", "given", "crop", "none"]
"""Where a region comes from: it is the whole photograph, was found, was given, was cut out before, or there is none."""
NO_EYE, TWO_DISCS, NOT_LISTED, OUTSIDE = "no_disc_found", "two_discs_found", "not_in_roi_table", "roi_outside"
ANOTHER_SIZE = "not_of_roi_size"
"""Why there is none, in the column `warning`."""
TOO_SMALL = "disc_too_small"
"""A disc of few pixels was found, of which no mask can be drawn: so there is none."""
_LEAST_DISC = 16
"""Its least diameter, in pixels."""
ONE_COLOUR = "one_colour"
"""The photograph shows nothing, so `auto` looks for no disc in it."""
UNCONFIRMED = "disc_unconfirmed"
"""The localiser has found no disc; the photograph is a crop if the networks draw one that is framed as in training."""

LOCALISER = "8af57ba3f7fc9bc08c3bb5297b5db41b492089e7d291f40b3ab6d1c1de2c0ae9"
"""SHA-256 of the weights that find the disc, which the record of predictions names."""
_NAMES = ("name", "file", "photograph", "image")
_SIDES = (("crop_x", "x"), ("crop_y", "y"), ("crop_width", "w", "width"), ("crop_height", "h", "height"))
"""The columns of a table of boxes. Those of `cases.csv` come first, so that its boxes can be taken again."""
_OF_MANIFEST = ("name", "source")
"""The columns of a manifest that name a crop, and the photograph from which it was cut."""
_MOST_PIXELS = 100_000


@dataclass(frozen=True)
class Region:
    """The part of one photograph that is predicted.

    Attributes:
        how: where it comes from.
        box: the part; None: there is none.
        reason: why there is none, or what is doubtful about it, as the column `warning` says it.
        crop: the part as a manifest has it; None: it comes from elsewhere.
        otherwise: what is predicted instead if the networks draw no disc in it that is framed as in training.
    """

    how: How
    box: Box | None
    reason: str = ""
    crop: Crop | None = None
    otherwise: Box | None = None

    @classmethod
    def of_crop(cls, crop: Crop, image: NDArray[np.uint8]) -> Region:
        """The region that a manifest's crop is of an image (H, W, 3): of the whole photograph, or of the crop alone."""
        size, frame = (image.shape[1], image.shape[0]), (crop.frame_width, crop.frame_height)
        box = Box(crop.left, crop.top, crop.width, crop.height)
        alone, certain = size == crop.size, crop.size != frame or box == Box.whole(image.shape)
        if size not in (crop.size, frame) or not certain:
            return cls("none", None, ANOTHER_SIZE)
        return cls("crop" if alone else "given", box, crop=crop)

    def cut(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """What the networks see, (h, w, 3), of a photograph (H, W, 3)."""
        if self.box is None or self.how == "crop":
            return image
        return self.crop.native.cut(image, 0, smooth=True) if self.crop else self.box.cut(image)

    def whole(self, maps: NDArray[Any], frame: tuple[int, ...]) -> NDArray[Any]:
        """Maps (..., h, w) as large as `box`, put into the whole photograph (H, W, ...): (..., H, W), 0 elsewhere."""
        if self.crop:
            return self.crop.native.whole(maps)
        return maps if self.box is None else self.box.paste(maps, frame)

    def whole_truth(self, masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """True masks (2, H, W), which are as large as the photograph that was given, in the frame of the whole one."""
        return self.crop.whole(masks) if self.crop and self.how == "crop" else masks

    def shown(self, masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Masks (2, H, W) of the whole photograph, as the photograph that was given shows them."""
        if self.crop is None or self.how != "crop":
            return masks
        return np.stack([self.crop.cut(mask, False, smooth=False) for mask in masks])

    def confirmed(self, disc: NDArray[np.bool_], framing: Framing | None, raw: NDArray[np.bool_]) -> Region:
        """The region, once the networks have drawn a disc in it: a doubtful one may turn out to be another, or none.

        Args:
            disc: (H, W).
            framing: of the photographs that trained the model; None: not known.
            raw: the disc before post-processing. In a picture of something else it has several parts, or holes.
        """
        if self.reason != UNCONFIRMED and self.otherwise is None:
            return self
        framed = framing is not None and bool(disc.any()) and framing.holds(disc_framing(disc))
        if self.otherwise:
            return self if framed else Region("auto", self.otherwise)
        if not (framed and is_one_piece(raw)):
            return Region("none", None, NO_EYE)
        return self if np.count_nonzero(disc) >= math.pi / 4 * _LEAST_DISC**2 else Region("none", None, TOO_SMALL)


@dataclass(frozen=True)
class Roi:
    """What is asked for.

    Attributes:
        kind: `auto`, `full`, or `given`.
        text: as it was asked for, for the record.
        box: the box for every photograph, if one is given.
        boxes: those of a table, by the name of the photograph.
    """

    kind: Literal["auto", "full", "given"] = "auto"
    text: str = f"auto, localiser {LOCALISER[:8]}"
    box: Box | None = None
    boxes: Mapping[str, Box | Crop] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, text: str) -> Roi:
        """Read `auto`, `full`, `X,Y,W,H` in pixels, or the path of a CSV with a box for each photograph.

        The CSV may be the manifest of `data prepare`, whose crops are then known as such.

        Raises:
            UsageError: the text is none of these.
            DataError: the table cannot be read, or a line of it has no box.
        """
        if text == "auto":
            return cls()
        if text == "full":
            return cls("full", text)
        if re.fullmatch(r"\s*[-+.\d\s]+(,[-+.\d\s]+)*", text):
            return cls("given", text, _box(text.split(",")))
        path = Path(text)
        if path.suffix.lower() != ".csv" and not path.is_file():
            raise UsageError(f"--roi {text}: write auto, full, X,Y,W,H in pixels, or a .csv with a box for each name")
        boxes = _read(path)
        return cls("given", f"table {file_digest(path)[:16]}", None, boxes)

    def region(
        self,
        name: str,
        image: NDArray[np.uint8],
        framing: Framing | None,
        find: Callable[[NDArray[np.uint8]], FoundDisc | str] | None,
    ) -> Region:
        """The region of one photograph.

        Args:
            name: its name.
            image: its pixels (H, W, 3).
            framing: of the photographs that trained the model; None: not known, and `auto` takes the whole photograph.
            find: finds the disc.
        """
        if self.kind == "given":
            box = self.box or self._listed(name)
            if box is None:
                return Region("none", None, NOT_LISTED)
            if isinstance(box, Crop):
                return Region.of_crop(box, image)
            return Region("given", box) if box.meets(image.shape) else Region("none", None, OUTSIDE)
        whole = Region("full", Box.whole(image.shape))
        if self.kind == "full" or framing is None or find is None:
            return whole
        if is_of_one_colour(image):
            return Region("none", None, ONE_COLOUR)
        disc = find(image)
        of_crops = framing.low > WHOLE
        is_crop = not (of_crops and shows_border(image))  # or it may be one
        if disc == NO_EYE and is_crop:
            return Region("full", whole.box, UNCONFIRMED)
        if isinstance(disc, str):
            return Region("none", None, disc)
        if disc.diameter < _LEAST_DISC:
            return Region("none", None, TOO_SMALL)
        side = disc.diameter / framing.middle
        share = disc.diameter / math.sqrt(image.shape[0] * image.shape[1])
        if is_crop and (framing.holds(share) or side >= max(image.shape[:2])):
            return whole  # framed as in training already, or nearer to the disc than any crop of it can be
        crop = Box.around(disc.x, disc.y, side)
        if (
            is_crop and share > WHOLE
        ):  # perhaps a crop whose disc is larger than was measured, its rim as red as the fundus
            return Region("full", whole.box, otherwise=crop)
        return Region("auto", crop)

    def _listed(self, name: str) -> Box | Crop | None:
        own = matched([name], self.boxes.keys()).get(name)
        return None if own is None else self.boxes[own]


AUTO, FULL = Roi(), Roi("full", "full")
NOWHERE = Region("none", None)


def _box(texts: list[str]) -> Box:
    """The box that four numbers give.

    Raises:
        UsageError: they are not four whole numbers, or the box has no pixel, or more than a photograph may have.
    """
    try:
        x, y, width, height = (int(text) for text in texts)
    except ValueError:
        raise UsageError(f"'{','.join(texts)}' is not a box: write X,Y,W,H as four whole numbers of pixels") from None
    if min(width, height) < 1 or max(abs(x), abs(y), width, height) > _MOST_PIXELS:
        raise UsageError(f"'{','.join(texts)}' is not a box: its width and height are 1 to {_MOST_PIXELS} pixels")
    if width * height > MAX_PIXELS:
        raise UsageError(
            f"'{','.join(texts)}' has more than {MAX_PIXELS // 10**6} million pixels: give a box that holds little "
            "more than the photograph"
        )
    return Box(x, y, width, height)


def _read(path: Path) -> dict[str, Box | Crop]:
    """The boxes of a CSV, by the name of the photograph; a line without numbers has no box, as in `cases.csv`.

    A crop of a manifest stands under its own name, and under that of the photograph from which it was cut.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a text in UTF-8"
        raise DataError(f"cannot be read ({reason}); give a .csv with the columns name,x,y,w,h", path) from error
    rows = csv.DictReader(lines, delimiter=";" if lines and ";" in lines[0] else ",", restval="")
    titles = rows.fieldnames = [title.strip().lower() for title in rows.fieldnames or ()]
    of_manifest = {*_OF_MANIFEST, *Crop.__dataclass_fields__} <= set(titles)
    found = [next((title for title in each if title in titles), "") for each in (_NAMES, *_SIDES)]
    names, sides = (_OF_MANIFEST, Crop.__dataclass_fields__) if of_manifest else (found[:1], found[1:])
    if not (of_manifest or all(found)):
        raise DataError(f"its columns are {', '.join(titles) or 'none'}; expected name,x,y,w,h", path, 1)
    boxes: dict[str, Box | Crop] = {}
    for row in rows:
        numbers = {side: row[side].strip() for side in sides}
        if any(numbers.values()):
            try:
                box = from_row(numbers) if of_manifest else _box(list(numbers.values()))
                for name in {_name(row[title].strip()) for title in names}:
                    if boxes.setdefault(name, box) != box:
                        raise UsageError(f"a second box for {name}; leave one of them")
            except (DataError, UsageError) as error:
                raise DataError(str(error), path, rows.line_num) from error
    return boxes


def _name(text: str) -> str:
    """The name of the photograph that a table calls by its name, its file or its path."""
    file = text.replace("\\", "/").rpartition("/")[2]
    return key(stem(file) if suffix_of(file) in PHOTOGRAPHS else file)
