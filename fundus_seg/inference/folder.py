"""Predict the masks of photographs in files, and write them as files."""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fundus_seg.builtins import MaskFormat, PictureFormat, Precision
from fundus_seg.data import listing
from fundus_seg.data.coding import Annotation, Coding, Thresholds
from fundus_seg.data.io import read_photograph, write_mask
from fundus_seg.data.mask_files import MaskFiles, find_masks
from fundus_seg.data.names import by_name, case_hint, matched, name_of
from fundus_seg.data.recognise import MOST_MASKS, Side, settle_coding
from fundus_seg.data.witness import Witness
from fundus_seg.digests import file_digest, short_hash
from fundus_seg.errors import CheckpointError, DataError, Problems, RunError, about, printable
from fundus_seg.inference.case_rows import columns, row_of, tell_warnings, texts_of
from fundus_seg.inference.output import Output, escaped
from fundus_seg.progress import SILENT, Progress
from fundus_seg.protocol import PROTOCOL_VERSION
from fundus_seg.runs.atomic import atomic_path
from fundus_seg.runs.folder import RunFolder
from fundus_seg.runs.lease import leased
from fundus_seg.viz.overlay import draw_overlay, save_picture

_EXAMPLES = 3
"""Names that a line gives at most."""


def predict_folder(
    model: Path,
    images: Sequence[Path],
    out: Path,
    *,
    recursive: bool = False,
    form: MaskFormat = "png",
    overlay: PictureFormat | None = None,
    truth: Sequence[str] = (),
    truth_coding: Coding | Thresholds | None = None,
    precision: Precision = "fp32",
    progress: Progress = SILENT,
) -> Path:
    """Predict the masks of photographs and write `out/masks/NAME.png` (or `.nii.gz`) and `out/cases.csv`.

    NAME is the photograph's name, its accents composed (`fundus_seg.data.names`). The CSV has a row for each
    photograph, written when its files are in place:

    - `photograph`, `height`, `width`: its path and size;
    - `disc_pixels`, `cup_pixels`, `vertical_cdr`: of the masks as they are written, in which the cup lies in the disc;
    - `cup_pixels_outside_disc`: pixels of the predicted cup that lie outside the disc, and so in no mask;
    - `framing`: diameter of the disc as a share of the frame (`fundus_seg.metrics.framing`);
    - `dsc_disc`, `dsc_cup`: with `truth`, the Dice of the written masks, empty for a photograph without a true mask;
    - `warning`: any of `no_disc`, `cup_outside_disc`, `framing` (the disc is not framed as in training),
      `phantom_model` (the model has seen the phantom alone, and this is not the phantom's), `stray_truth` (the true
      mask has stray parts) and `one_colour` (the picture shows nothing), joined by semicolons;
    - `inputs`: 16 hexadecimal digits that stand for the bytes of the photograph and of its true mask.

    A second call with the same `out` goes on: it skips the photographs that are done, and does those again whose bytes
    have changed. `out/predictions.json` says what made the predictions.

    Args:
        model: folder of a run, or a checkpoint.
        images: photographs, and folders of photographs.
        out: the folder to write to.
        recursive: whether the folders' subfolders are listed too.
        form: format of the masks.
        overlay: format of the pictures `out/overlays/NAME.jpg` (or `.png`), the contours drawn on each photograph; None
            draws none.
        truth: folder or pattern of true masks, or two of binary masks, as `find_masks` takes them.
        truth_coding: coding of the true masks; None: it is recognised.
        precision: as in `Predictor`.
        progress: gets what is left out, what was done before, and what the reader should be warned of.

    Returns:
        The path of the CSV.

    Raises:
        DataError: there is no photograph; `truth` holds no mask with the name of a photograph, or its coding is not
            clear; the masks or overlays would be written among the inputs; or photographs cannot be used or
            share a name, all of which the error lists, after the others are done.
        CheckpointError: the model does not exist, or is not a whole checkpoint of fundus-seg.
        RunError: `out` holds what another model, precision, format or version has predicted, or predictions of another
            photograph with a name that is given; or it cannot be written.
        BusyError: another process is writing there.
    """
    if not model.exists():
        raise CheckpointError(f"{model}: no such run or checkpoint")
    found = listing.photographs(images, recursive=recursive, written=out)
    unusable = Problems()
    photographs = by_name(found.files, "photograph", unusable)
    if not photographs:
        unusable.refuse("photographs cannot be used")
    truths = _truths(truth, truth_coding, photographs, progress) if truth else None
    _keep_apart(out, photographs.values(), truths)
    made_by = _made_by(model, form, precision)
    output = Output(out, columns(scored=truths is not None), made_by, form, overlay)
    output.rows()  # refuses what does not fit before anything is loaded
    listing.tell(found.skipped, progress)

    from fundus_seg.inference.predict import load_model  # imports torch, only once the arguments are right

    predictor = load_model(model, precision=precision)
    phantom = _of_phantom(model) if predictor.phantom is None else predictor.phantom
    witness = Witness("--truth-coding")
    with leased(out):
        plan = _plan(output, photographs, truths)
        output.begin(plan.rows.values(), {"framing": predictor.framing and asdict(predictor.framing)})
        plan.tell(output, found.files, progress)
        rows = {name: row for name, row in plan.rows.items() if name in photographs}
        try:
            with progress.task("predicting", total=len(plan.to_do)) as advance:
                for name, path in plan.to_do.items():
                    with unusable.gather():
                        image, true = _read(name, path, truths, witness)
                        with about(path):
                            masks = predictor(image)
                        inputs = _inputs(name, path, truths)
                        row = row_of(
                            path, image, masks, true, framing=predictor.framing, phantom=phantom, inputs=inputs
                        )
                        _write(output, name, path, image, masks, true, row)
                        rows[name] = row
                    advance()
        except (KeyboardInterrupt, SystemExit, RunError):
            if output.table.exists():  # else the folder was deleted
                done = f"{len(rows)} of {len(found.files)} photographs are done"
                progress.line(f"stopped: {done}; the same command goes on from there")
            raise
        tell_warnings(rows.values(), predictor.framing, progress)
        witness.suspicion().tell(progress, but=["stray"])  # which the rows tell, those of earlier calls too
    if unusable.found:
        progress.line(f"{len(rows)} of {len(found.files)} photographs are done; the others cannot be used")
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

    def tell(self, output: Output, given: Sequence[Path], progress: Progress) -> None:
        """Say what was found of the given photographs, if anything was."""
        names = {name_of(path) for path in given}
        if self.rows or self.again:
            done = len(self.rows.keys() & names)
            progress.line(f"{output.path}: {done} of {len(given)} photographs are done already")
        if self.again:
            more = f" and {len(self.again) - _EXAMPLES} more" if len(self.again) > _EXAMPLES else ""
            named = ", ".join(printable(path) for path in self.again[:_EXAMPLES])
            progress.line(f"done again, since they or their files have changed: {named}{more}")
        if count := len(self.rows.keys() - names):
            which = "1 photograph of earlier calls is" if count == 1 else f"{count} photographs of earlier calls are"
            progress.line(f"{which} not given now; what was predicted of them stays")


def _plan(output: Output, photographs: Mapping[str, Path], truths: MaskFiles | None) -> _Plan:
    """Compare the rows of the output folder with the photographs; remove the files of those that have changed.

    Raises:
        RunError: as `Output.rows`, or rows are of other photographs of the same name.
    """
    rows = {name_of(Path(row["photograph"])): row for row in output.rows()}
    to_do: dict[str, Path] = {}
    again: list[Path] = []
    changed, others = [], []
    for name, path in photographs.items():
        row = rows.get(name)
        if row is None:
            to_do[name] = path
            continue
        same = _inputs(name, path, truths) == row["inputs"]
        if same and output.is_whole(name):
            continue
        if not same and not _same_path(path, row["photograph"]):
            others.append(f"{printable(path)} (there: {printable(row['photograph'])})")
            continue
        to_do[name] = path
        again.append(path)
        if not same:
            changed.append(name)
    if others:
        named = ", ".join(others[:_EXAMPLES])
        more = f" and {len(others) - _EXAMPLES} more" if len(others) > _EXAMPLES else ""
        raise RunError(
            f"{output.path}: holds the masks of other photographs with the same names ({len(others)} of those given); "
            f"choose another --out for {named}{more}"
        )
    for name in changed:
        output.remove(name)
    return _Plan({name: row for name, row in rows.items() if name not in to_do}, to_do, again)


def _same_path(path: Path, recorded: str) -> bool:
    return Path(escaped(path)).absolute() == Path(recorded).absolute()


def _write(
    output: Output,
    name: str,
    path: Path,
    image: NDArray[np.uint8],
    masks: NDArray[np.bool_],
    true: NDArray[np.bool_] | None,
    row: Mapping[str, Any],
) -> None:
    """Write the files of one photograph, then its row."""
    with atomic_path(output.mask(name)) as temporary:
        write_mask(temporary, masks, output.form, like=path)
    if output.overlay:
        written = np.stack([masks[0], masks[0] & masks[1]])
        drawing = draw_overlay(image, written, true, name=name, texts=texts_of(row))
        save_picture(drawing, output.picture(name, output.overlay), output.overlay)
    output.add(row)


def _made_by(model: Path, form: MaskFormat, precision: Precision) -> dict[str, Any]:
    """What makes predictions: equal values, equal predictions. A checkpoint holds its protocol."""
    checkpoint = RunFolder(model).checkpoint("best") if model.is_dir() else model
    try:
        digest = file_digest(checkpoint)[:16]
    except OSError as error:
        raise CheckpointError(
            f"{checkpoint}: cannot be read ({error.strerror}); give the folder of a trained run, seed-N, or a "
            "checkpoint"
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
    """What stands for the files that a photograph's row comes from; None if they cannot be read."""
    files = truths.files.get(name, ()) if truths else ()
    coding = str(truths.annotation) if truths and files else None
    try:
        return short_hash([coding, *(file_digest(file) for file in (path, *files))], digits=16)
    except OSError:
        return None


def _truths(
    where: Sequence[str], coding: Coding | Thresholds | None, photographs: Mapping[str, Path], progress: Progress
) -> MaskFiles:
    """The true masks of the photographs; a photograph without one gets no scores.

    Some are read with their photographs, so that what is wrong with all of them is told before anything is predicted.

    Raises:
        DataError: as `find_masks` and `settle_coding`; no mask has the name of a photograph; or most masks show another
            coding, have no disc, or lie otherwise on their photographs.
    """
    masks = find_masks(where, coding)
    names = list(photographs)
    files = {name: masks[other] for name, other in matched(names, masks.keys()).items()}
    if not files:
        raise DataError(
            f"holds no mask with the name of a photograph ('{next(iter(masks))}' here, '{names[0]}' there); "
            + (
                case_hint(masks, names)
                or "--truth takes a folder of true masks, or a pattern that says which part of a path is the name"
            ),
            where[0],
        )
    settled = settle_coding(Side(where, list(files.values()), coding, "--truth-coding"))
    if settled != coding:
        progress.line(f"coding of the true masks, as recognised: {settled}")
    unscored = [name for name in names if name not in files]
    progress.left_out("photograph", "not scored, without a true mask", unscored, case_hint(unscored, masks))
    truths = MaskFiles(files, Annotation(settled), nested=True)
    witness = Witness("--truth-coding")
    for name in list(files)[:MOST_MASKS]:
        with contextlib.suppress(DataError):  # reported with its photograph
            _read(name, photographs[name], truths, witness)
    Problems(witness.suspicion().problems).refuse("problems with the true masks")
    return truths


def _keep_apart(out: Path, photographs: Iterable[Path], truths: MaskFiles | None) -> None:
    """Refuse an output folder in which masks or overlays would be written among the inputs."""
    files = [*photographs, *(path for paths in truths.files.values() for path in paths)] if truths else photographs
    if {(out / "masks").resolve(), (out / "overlays").resolve()} & {path.parent.resolve() for path in files}:
        raise DataError("its masks/ or overlays/ hold what was given; choose another --out", out)


def _read(
    name: str, path: Path, truths: MaskFiles | None, witness: Witness
) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
    """A photograph, and its true masks if it has any, which the witness sees."""
    photograph = read_photograph(path)
    if truths is None or name not in truths.files:
        return photograph.pixels, None
    true = truths.read(name, witness, photograph, path)
    return photograph.pixels, true
