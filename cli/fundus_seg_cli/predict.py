"""`fundus-seg predict`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from fundus_seg.builtins import CasesFormat, MaskFormat, PictureFormat
from fundus_seg.errors import UsageError
from fundus_seg_cli.console import print_data, terminable
from fundus_seg_cli.options import Address, DeclineBelow, NetworkPrecision, NetworkViews, Strict, Trust, TruthCoding


def predict(
    model: Annotated[
        str,
        typer.Argument(
            help="Folder of a run, a checkpoint file, a folder that `export` made, a folder with runs below, which "
            "predict together, or `starter`, the network that comes with the package."
        ),
    ],
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="[MODEL]... IMAGES...",
            help="Photographs, or folders of photographs; further models before them predict together with the first.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(help="Folder that the masks are written to. The same command goes on with what is missing in it."),
    ],
    recursive: Annotated[
        bool, typer.Option("--recursive", help="Take the photographs in the folders' subfolders too.")
    ] = False,
    form: Annotated[
        MaskFormat,
        typer.Option("--format", help="png: grey 0 cup, 128 rim, 255 background; nifti: labels 2, 1, 0."),
    ] = "png",
    overlay: Annotated[
        PictureFormat | None,
        typer.Option(
            help="Also draw the contours on each photograph, in this format: --overlay alone means jpeg, which is "
            "small; png keeps every pixel.",
        ),
    ] = None,
    probabilities: Annotated[
        bool,
        typer.Option(
            "--probabilities",
            help="Also keep the probabilities of disc and cup, before threshold and post-processing: PNG of 16 bits, "
            "65535 for 1; or NIfTI of floats.",
        ),
    ] = False,
    views: NetworkViews = None,
    truth: Annotated[
        list[str] | None,
        typer.Option(
            help="True masks that have the names of the photographs: a folder, or a pattern. Give it twice for binary "
            "masks: first the disc, then the cup."
        ),
    ] = None,
    truth_coding: TruthCoding = None,
    precision: NetworkPrecision = "fp32",
    roi: Annotated[
        str,
        typer.Option(
            metavar="auto|full|X,Y,W,H|FILE.csv",
            help="Part of each photograph that the network sees. auto: find the disc, and frame it as in training; "
            "full: all of it; a box in pixels; or a table of boxes with the columns name,x,y,w,h. With the manifest "
            "of data prepare, photographs may also be its crops: their masks are put back into the whole photographs.",
        ),
    ] = "auto",
    decline_below: DeclineBelow = None,
    anatomical: Annotated[
        bool,
        typer.Option(
            "--anatomical",
            help="Make the masks anatomical: the cup in the disc, each in one piece, without holes, smoothly outlined.",
        ),
    ] = False,
    keep_ids: Annotated[
        bool,
        typer.Option(
            "--keep-ids",
            help="Write the patients' and studies' identifiers of DICOM files into cases.csv as they are; without it, "
            "hashes with a key that you alone have.",
        ),
    ] = False,
    table: Annotated[
        CasesFormat,
        typer.Option(
            help="Also write the table of photographs in this form at the end, beside cases.csv, with numbers as "
            "numbers; parquet needs the extra of that name."
        ),
    ] = "csv",
    report: Annotated[
        bool,
        typer.Option(
            "--report",
            help="Also write report.html, one page that opens offline: every photograph with its status and reason, "
            "the worst first.",
        ),
    ] = False,
    with_photographs: Annotated[
        bool,
        typer.Option("--with-photographs", help="Show the worst photographs in report.html, with their contours."),
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Do one of N parts of the photographs, as 3/8 on the third of eight machines, all with one --out that "
            "they share.",
        ),
    ] = None,
    executor: Annotated[
        Literal["serial", "ray"],
        typer.Option(help="Work in this process, or in shards on a Ray cluster whose nodes share all paths."),
    ] = "serial",
    address: Address = None,
    gpus_per_shard: Annotated[
        float, typer.Option(min=0, help="With Ray: the share of a GPU for each shard at work; 0: CPU.")
    ] = 0,
    trust: Trust = None,
    strict: Strict = False,
) -> None:
    """Write the masks of photographs at their own size, with a table of sizes, cup-to-disc ratios and warnings."""
    from fundus_seg.data.domain_file import read_coding
    from fundus_seg.inference.folder import predict_folder
    from fundus_seg.inference.members import models_and_photographs
    from fundus_seg.inference.roi import Roi
    from fundus_seg.inference.shards import Shard
    from fundus_seg.plugins import load
    from fundus_seg_cli.progress import Terminal

    progress = Terminal()
    if with_photographs and not report:
        raise UsageError("--with-photographs shows photographs in the page that --report writes: give --report too")
    part = Shard.parse(shard) if shard is not None else None
    for name in trust or []:
        load(name)
    if executor == "serial":
        run: Callable[..., Path] = partial(predict_folder, shard=part)
    elif part:
        raise UsageError("--shard with --executor ray: the cluster does all shards; leave --shard out")
    else:
        from fundus_seg.experiments.ray_predict import predict_on_ray

        run = partial(predict_on_ray, address=address, gpus=gpus_per_shard, trust=trust or ())
    models, photographs = models_and_photographs([model, *images])
    with terminable():
        written = run(
            models,
            photographs,
            out,
            recursive=recursive,
            form=form,
            overlay=overlay,
            probabilities=probabilities,
            views=views or "none",
            truth=truth or (),
            truth_coding=read_coding(truth_coding) if truth_coding else None,
            precision=precision,
            roi=Roi.parse(roi),
            anatomical=anatomical,
            keep_ids=keep_ids,
            decline_below=decline_below,
            cases=table,
            progress=progress,
        )
    print_data(written)
    if report:
        from fundus_seg.reporting.page.predictions import predictions_page
        from fundus_seg.reporting.page.render import write_page

        if part and written.parent != out:
            progress.line(f"no {out / 'report.html'} yet: another shard is at work, and the last that ends writes it")
        else:
            page, pictures = predictions_page(out, with_photographs=with_photographs, progress=progress)
            write_page(page, out / "report.html", pictures=pictures, say=progress.line)
    progress.check(strict=strict)
