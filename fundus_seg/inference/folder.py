"""Predict the masks of photographs in files, and write them as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fundus_seg.builtins import CasesFormat, MaskFormat, PictureFormat, Precision, Views
from fundus_seg.cores import core_count
from fundus_seg.data.coding import Coding, Thresholds
from fundus_seg.inference.job import PredictionJob
from fundus_seg.inference.roi import FULL, Roi
from fundus_seg.inference.shards import Shard, refuse_others
from fundus_seg.progress import SILENT, Progress
from fundus_seg.runs.lease import leased


def predict_folder(
    model: str | Path | Sequence[str | Path],
    images: Sequence[Path],
    out: Path,
    *,
    recursive: bool = False,
    form: MaskFormat = "png",
    overlay: PictureFormat | None = None,
    probabilities: bool = False,
    views: Views = "none",
    truth: Sequence[str] = (),
    truth_coding: Coding | Thresholds | None = None,
    precision: Precision = "fp32",
    roi: Roi = FULL,
    anatomical: bool = False,
    keep_ids: bool = False,
    decline_below: float | None = None,
    cases: CasesFormat = "csv",
    shard: Shard | None = None,
    cores: int | None = None,
    progress: Progress = SILENT,
) -> Path:
    """Predict the masks of photographs and write `out/masks/NAME.png` (or `.nii.gz`) and `out/cases.csv`.

    NAME is the photograph's name, its accents composed (`fundus_seg.data.names`). The CSV has a row for each
    photograph, written when its files are in place; docs/guide.md says what its columns hold (`case_columns.COLUMNS`).
    A photograph that cannot be read has a row that says why.

    A second call with the same `out` goes on: it skips the photographs that are done, and does those again whose bytes
    have changed. `out/predictions.json` says what made the predictions.

    The network works in the calling thread. Threads read photographs ahead of it and finish masks behind it, on the
    cores that it leaves free, and hold no more photographs than a quarter of the free memory does.

    Args:
        model: folder of a run, a checkpoint, or the name of a model, as `starter`. Several, or a folder with runs
            below, predict together: the mean of their probabilities, in whatever order they are given.
        images: photographs, and folders of photographs.
        out: the folder to write to.
        recursive: whether the folders' subfolders are listed too.
        form: format of the masks.
        overlay: format of the pictures `out/overlays/NAME.jpg` (or `.png`), the contours drawn on each photograph; None
            draws none.
        probabilities: whether `out/probabilities/disc/NAME.png` and `out/probabilities/cup/NAME.png` are written too:
            the probabilities before threshold and post-processing, times 65535, in 16 bits; or `.nii.gz` of 32-bit
            floats.
        views: flip: each network also sees the photograph's mirror image, and what it predicts is mirrored back and
            averaged with the rest.
        truth: folder or pattern of true masks, or two of binary masks, as `find_masks` takes them.
        truth_coding: coding of the true masks; None: it is recognised.
        precision: as in `Predictor`.
        roi: which part of each photograph the networks see; auto finds the disc and frames it as in training.
        anatomical: whether masks are made anatomical (`Scoring.anatomical`), whatever the models' protocol says.
        keep_ids: whether the table holds the identifiers of DICOM files as they are, and not their hashes.
        decline_below: a photograph is declined if its predicted DSC, the mean of disc and cup, is below this; None:
            none is.
        cases: form in which the whole table is also written at the end, as `out/cases.json` or `out/cases.parquet`.
        shard: the part of the photographs to do; None: all. Shards may be done at the same time on machines that share
            `out`. The table of a shard lies in `out/shards`, until the last that ends, or any later call, joins all.
        cores: the number of cores to use; None: all that this process may use.
        progress: gets what is left out, what was done before, and what the reader should be warned of.

    Returns:
        The path of the table in that form; of a shard, of its own CSV while others are missing or at work.

    Raises:
        DataError: there is no photograph, or none that can be read; `truth` holds no mask with the name of a
            photograph, or its coding is not clear; the masks or overlays would be written among the inputs; or
            photographs share a name, or their true masks cannot be used, all of which the error lists, after the others
            are done.
        CheckpointError: a model does not exist, or is not a whole checkpoint of fundus-seg.
        UsageError: a model is given twice, or models do not fit together; photographs are to be declined, and trust is
            not calibrated; a photograph is a DICOM file, and pydicom is not installed; or the form needs pyarrow, and
            that is not.
        RunError: `out` holds what another model, precision, format, view or version has predicted, or predictions of
            another photograph with a name that is given; or it cannot be written.
        BusyError: another process is writing there.
    """
    job = PredictionJob.of(
        model,
        images,
        out,
        recursive=recursive,
        form=form,
        overlay=overlay,
        probabilities=probabilities,
        views=views,
        truth=truth,
        truth_coding=truth_coding,
        precision=precision,
        roi=roi,
        anatomical=anatomical,
        keep_ids=keep_ids,
        decline_below=decline_below,
        cases=cases,
        shard=shard,
        progress=progress,
    )
    with leased(job.table.folder, check=lambda: refuse_others(out, shard)):
        done = job.run(cores or core_count(), progress)
    table = job.table.path if shard and not job.join() else job.table_in_form()
    if shard:
        progress.line(f"shard {shard}: {done} of {len(job.given)} photographs are done; its table is in {table}")
    elif job.unusable.found:
        progress.line(f"{done} of {len(job.given)} photographs are done; the others cannot be used")
    job.refuse_unusable(done)
    return table
