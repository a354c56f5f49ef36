"""Predict the masks of photographs in files, and write them as files."""

from __future__ import annotations

import importlib.metadata
import math
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fundus_seg.builtins import MaskFormat, PictureFormat, Precision
from fundus_seg.data.coding import BY_DOFE
from fundus_seg.data.files import NAME, Pattern
from fundus_seg.data.io import read_image, write_mask
from fundus_seg.data.layout import in_phantom
from fundus_seg.data.mask_files import MaskFiles
from fundus_seg.digests import file_digest, short_hash
from fundus_seg.errors import CheckpointError, DataError, Problems, RunError, about
from fundus_seg.inference.output import Output, plain
from fundus_seg.metrics import dice, pixels_outside, vertical_cup_to_disc_ratio
from fundus_seg.metrics.framing import Framing, disc_framing
from fundus_seg.progress import SILENT, Progress
from fundus_seg.protocol import PROTOCOL_VERSION, STRUCTURES
from fundus_seg.runs.atomic import atomic_path
from fundus_seg.runs.folder import RunFolder
from fundus_seg.runs.lease import leased

PHOTOGRAPHS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")

NO_DISC, CUP_OUTSIDE, FRAMING, PHANTOM = "no_disc", "cup_outside_disc", "framing", "phantom_model"
"""What the column `warning` holds, several of them joined by semicolons."""

_COLUMNS = (
    "photograph",
    "height",
    "width",
    "disc_pixels",
    "cup_pixels",
    "cup_pixels_outside_disc",
    "vertical_cdr",
    "framing",
    "warning",
    "inputs",
)
_SCORES = tuple(f"dsc_{name}" for name in STRUCTURES)
_NAMED = 3  # names that a line gives as examples


def predict_folder(
    model: Path,
    images: Sequence[Path],
    out: Path,
    *,
    form: MaskFormat = "png",
    overlay: PictureFormat | None = None,
    truth: Path | None = None,
    precision: Precision = "fp32",
    progress: Progress = SILENT,
) -> Path:
    """Predict the masks of photographs and write `out/masks/NAME.png` (or `.nii.gz`) and `out/cases.csv`.

    The CSV has a row for each photograph, written when its mask is in place:

    - `photograph`, `height`, `width`: its path and size;
    - `disc_pixels`, `cup_pixels`, `vertical_cdr`: of the masks as they are written, in which the cup lies in the disc;
    - `cup_pixels_outside_disc`: pixels of the predicted cup that lie outside the disc, and so in no mask;
    - `framing`: diameter of the disc as a share of the frame (`fundus_seg.metrics.framing`);
    - `dsc_disc`, `dsc_cup`: with `truth`, the Dice of the written masks, empty for a photograph without a true mask;
    - `warning`: any of `no_disc`, `cup_outside_disc`, `framing` (the disc is not framed as in training) and
      `phantom_model` (the model has seen the phantom alone, and this is not the phantom's), joined by semicolons;
    - `inputs`: 16 hexadecimal digits of the bytes of the photograph and of its true mask.

    A second call with the same `out` goes on: it skips the photographs that are done, and does those again whose bytes
    have changed. `out/predictions.json` says what made the predictions.

    Args:
        model: folder of a run, or a checkpoint.
        images: photographs, and folders of photographs.
        out: the folder to write to.
        form: format of the masks.
        overlay: format of the pictures `out/overlays/NAME.jpg` (or `.png`), the contours drawn on each photograph; None
            draws none.
        truth: folder of true masks: PNG files in the coding `dofe` with the names of the photographs.
        precision: as in `Predictor`.
        progress: where the progress is shown.

    Returns:
        The path of the CSV.

    Raises:
        DataError: there is no photograph, or two have the same name; there is no true mask in `truth`; the masks or
            overlays would be written among the inputs; or photographs cannot be used, all of which the error lists,
            after the others are done.
        CheckpointError: the model does not exist, or is not a whole checkpoint of fundus-seg.
        RunError: `out` holds what another model, precision, format or version has predicted, or predictions of another
            photograph with a name that is given; or it cannot be written.
        BusyError: another process is writing there.
    """
    if not model.exists():
        raise CheckpointError(f"{model}: no such run or checkpoint")
    photographs = _photographs(images)
    truths = _truths(truth, photographs) if truth else None
    inputs = [path.parent for path in photographs.values()]
    _keep_apart(out, [*inputs, truth] if truth else inputs)
    columns = (*_COLUMNS[:-2], *_SCORES, *_COLUMNS[-2:]) if truths else _COLUMNS
    output = Output(out, columns, _made_by(model, form, precision), form, overlay)
    output.rows()  # refuses before anything is loaded

    from fundus_seg.inference.predict import load_model  # imports torch, only once the arguments are right

    predictor = load_model(model, precision=precision)
    phantom = _of_phantom(model) if predictor.phantom is None else predictor.phantom
    unusable = Problems()
    with leased(out):
        plan = _plan(output, photographs, truths)
        output.begin(plan.rows.values(), {"framing": predictor.framing and asdict(predictor.framing)})
        plan.tell(output, progress)
        rows = {name: row for name, row in plan.rows.items() if name in map(plain, photographs)}
        try:
            with progress.task("predicting", total=len(plan.to_do)) as advance:
                for name, path in plan.to_do.items():
                    with unusable.gather():
                        image, true = _read(name, path, truths)
                        with about(path):
                            masks = predictor(image)
                        warnings = [PHANTOM] if phantom and not in_phantom(path.parent) else []
                        row = _row(path, masks, true, predictor.framing, warnings)
                        row["inputs"] = _inputs(name, path, truths)
                        _write(output, name, image, masks, true, row)
                        rows[plain(name)] = row
                    advance()
        except (KeyboardInterrupt, SystemExit):
            progress.line(
                f"stopped: {len(rows)} of {len(photographs)} photographs are done; the same command goes on from there"
            )
            raise
        _tell(rows.values(), predictor.framing, progress)
    unusable.refuse(f"photographs cannot be used (the other {len(rows)} are done)")
    return output.table


@dataclass(frozen=True)
class _Plan:
    """What a call finds in its output folder, and what is left to do.

    Attributes:
        rows: the rows that stay, by name.
        to_do: the photographs to predict, by name.
        again: those of them that had a row.
    """

    rows: Mapping[str, Mapping[str, Any]]
    to_do: Mapping[str, Path]
    again: Sequence[Path]

    def tell(self, output: Output, progress: Progress) -> None:
        """Say what was found, if anything was."""
        if self.rows or self.again:
            progress.line(f"{output.path}: {len(self.rows)} photographs are done already, {len(self.to_do)} are to do")
        if self.again:
            progress.line(f"done again, since they or their files have changed: {_some(self.again)}")


def _plan(output: Output, photographs: Mapping[str, Path], truths: MaskFiles | None) -> _Plan:
    """Compare the rows of the output folder with the photographs; remove the files of those that have changed.

    Raises:
        RunError: as `Output.rows`, or a row is of another photograph of the same name.
    """
    rows = {_name(Path(row["photograph"])): row for row in output.rows()}
    to_do, again, changed, others = {}, [], [], Problems()
    for name, path in photographs.items():
        row = rows.get(plain(name))
        if row is None:
            to_do[name] = path
            continue
        now = _inputs(name, path, truths)
        same = now == row["inputs"]
        if same and output.is_whole(name):
            continue
        if not same and Path(row["photograph"]).resolve() != Path(plain(path)).resolve():
            others.add(f"{output.path} holds the masks of {row['photograph']}, which has the same name", path)
            continue
        to_do[name] = path
        again.append(path)
        if not same:
            changed.append(name)
    try:
        others.refuse("photographs have the name of another one in --out; choose another --out")
    except DataError as error:
        raise RunError(str(error)) from error
    for name in changed:
        output.remove(name)
    return _Plan({name: row for name, row in rows.items() if name not in map(plain, to_do)}, to_do, again)


def _write(
    output: Output,
    name: str,
    image: NDArray[np.uint8],
    masks: NDArray[np.bool_],
    true: NDArray[np.bool_] | None,
    row: Mapping[str, Any],
) -> None:
    """Write the files of one photograph, then its row."""
    with atomic_path(output.mask(name)) as temporary:
        write_mask(temporary, masks, output.form)
    if output.overlay:
        from fundus_seg.viz.overlay import draw_overlay, save_picture

        written = np.stack([masks[0], masks[0] & masks[1]])
        drawing = draw_overlay(image, written, true, name=name, texts=_texts(row))
        save_picture(drawing, output.picture(name, output.overlay), output.overlay)
    output.add(row)


def _texts(row: Mapping[str, Any]) -> list[str]:
    """What an overlay says of a photograph beside its name."""
    if row["disc_pixels"] == 0:
        return ["no disc found"]
    texts = [f"vCDR {row['vertical_cdr']:.2f}"]
    if not math.isnan(row.get("dsc_disc", math.nan)):
        texts += [f"Dice {name} {100 * row[f'dsc_{name}']:.1f}" for name in STRUCTURES]
    if FRAMING in row["warning"]:
        texts.append("not framed as in training")
    return texts


def _row(
    path: Path,
    masks: NDArray[np.bool_],
    true: NDArray[np.bool_] | None,
    framing: Framing | None,
    warnings: Sequence[str],
) -> dict[str, Any]:
    """A photograph's row of the CSV: what its written masks show, in which the cup lies in the disc."""
    disc = masks[0]
    outside = pixels_outside(masks[1], disc)
    written = (disc, masks[1] & disc)
    row: dict[str, Any] = {"photograph": str(path), "height": disc.shape[0], "width": disc.shape[1]}
    row |= {f"{name}_pixels": int(mask.sum()) for name, mask in zip(STRUCTURES, written, strict=True)}
    row["cup_pixels_outside_disc"] = outside
    row["vertical_cdr"] = vertical_cup_to_disc_ratio(*written)
    row["framing"] = disc_framing(disc)
    row |= dict.fromkeys(_SCORES, math.nan)
    if true is not None:
        row |= {f"dsc_{name}": dice(*pair) for name, *pair in zip(STRUCTURES, written, true, strict=True)}
    found = {
        NO_DISC: not disc.any(),
        CUP_OUTSIDE: outside > 0,
        FRAMING: framing is not None and bool(disc.any()) and not framing.holds(row["framing"]),
    }
    row["warning"] = ";".join([*(warning for warning, applies in found.items() if applies), *warnings])
    return row


def _tell(rows: Iterable[Mapping[str, Any]], framing: Framing | None, progress: Progress) -> None:
    """Say of how many photographs the warnings are."""
    every = [(row, str(row["warning"]).split(";")) for row in rows]
    of = {kind: [row for row, warnings in every if kind in warnings] for kind in (NO_DISC, CUP_OUTSIDE, FRAMING, PHANTOM)}
    if of[PHANTOM]:
        progress.line(
            f"warning: {len(of[PHANTOM])} of {len(every)} photographs: the model was trained on the phantom alone, and "
            "these are not the phantom's; its masks say nothing about them"
        )
    if of[NO_DISC]:
        progress.line(f"{len(of[NO_DISC])} of {len(every)} photographs: no disc found")
    if of[CUP_OUTSIDE]:
        progress.line(
            f"{len(of[CUP_OUTSIDE])} of {len(every)} photographs: pixels of the cup outside the disc are left out of "
            "the masks, which cannot hold them (column cup_pixels_outside_disc)"
        )
    if of[FRAMING] and framing:
        ratios = [round(100 * float(row["framing"])) for row in of[FRAMING]]
        seen = f"{min(ratios)}" if min(ratios) == max(ratios) else f"{min(ratios)}-{max(ratios)}"
        progress.line(
            f"warning: {len(of[FRAMING])} of {len(every)} photographs: the disc is {seen} % of the frame, the model "
            f"was trained on {framing}: not framed as in training"
        )
    if every and framing is None:
        progress.line(
            "the checkpoint does not say how its training photographs were framed (an older fundus-seg wrote it): "
            "framing is not checked"
        )


def _some(paths: Sequence[Path]) -> str:
    """The first of the paths, and how many more there are."""
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return ", ".join(map(str, paths[:_NAMED])) + more


def _made_by(model: Path, form: MaskFormat, precision: Precision) -> dict[str, Any]:
    """What makes predictions: equal values, equal predictions. A checkpoint says how its network is used."""
    checkpoint = RunFolder(model).checkpoint("best") if model.is_dir() else model
    try:
        digest = file_digest(checkpoint)[:16]
    except OSError as error:
        raise CheckpointError(
            f"{checkpoint}: cannot be read ({error.strerror}); give the folder of a trained run, seed-N, or a checkpoint"
        ) from error
    return {
        "checkpoint": digest,
        "fundus-seg": importlib.metadata.version("fundus-seg"),
        "protocol version": PROTOCOL_VERSION,
        "precision": precision,
        "mask format": form,
    }


def _of_phantom(model: Path) -> bool:
    """Whether a run of an older version, whose checkpoint does not say it, was trained on the phantom."""
    try:
        return bool(RunFolder(model).read_config()["provenance"].get("phantom"))
    except RunError:  # a checkpoint alone
        return False


def _inputs(name: str, path: Path, truths: MaskFiles | None) -> str | None:
    """Digest of the bytes that a photograph's row comes from; None if they cannot be read."""
    files = truths.files.get(name, ()) if truths else ()
    try:
        return short_hash([file_digest(file) for file in (path, *files)], digits=16)
    except OSError:
        return None


def _photographs(images: Sequence[Path]) -> dict[str, Path]:
    """The photographs by name: the given files, and those directly inside the given folders."""
    found: list[Path] = []
    for path in images:
        if path.is_dir():
            inside = [file for file in sorted(path.iterdir()) if file.suffix.lower() in PHOTOGRAPHS]
            if not inside:
                raise DataError(f"no photograph in it ({', '.join(PHOTOGRAPHS)})", path)
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise DataError("no such photograph or folder", path)
    counts = Counter(map(_name, found))
    clashes = Problems()
    for path in found:
        if counts[_name(path)] > 1:
            clashes.add(f"another photograph is named {_name(path)} too", path)
    clashes.refuse("photographs share a name; predict them into different folders")
    return {_name(path): path for path in found}


def _name(path: Path) -> str:
    """The name of a photograph, which its mask gets too."""
    return path.stem


def _truths(folder: Path, names: Container[str]) -> MaskFiles:
    """The true masks of the photographs; a photograph without one gets no scores."""
    found = {name: (path,) for name, path in Pattern(folder, f"{NAME}.png").find() if name in names}
    if not found:
        raise DataError("holds no PNG with the name of a photograph; --truth takes a folder of true masks", folder)
    return MaskFiles(found, BY_DOFE, nested=True)


def _keep_apart(out: Path, inputs: Iterable[Path]) -> None:
    """Refuse an output folder in which masks or overlays would be written among the inputs."""
    if {(out / "masks").resolve(), (out / "overlays").resolve()} & {folder.resolve() for folder in inputs}:
        raise DataError("its masks/ or overlays/ hold what was given; choose another --out", out)


def _read(name: str, path: Path, truths: MaskFiles | None) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
    """A photograph, and its true masks if it has any."""
    image = read_image(path)
    if truths is None or name not in truths.files:
        return image, None
    true = truths.read(name)
    if true.shape[1:] != image.shape[:2]:
        raise DataError(f"of another size than its photograph {path}", truths.files[name][0])
    return image, true
