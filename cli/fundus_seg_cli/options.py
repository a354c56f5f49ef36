"""The options that several commands share, each declared once, and the parser of comma-separated names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, get_args

import typer
from typer.core import TyperCommand

from fundus_seg.builtins import (
    OPERATORS,
    CheckpointName,
    Perturbation,
    PictureFormat,
    Precision,
    Tracker,
    Unannotated,
    Views,
)
from fundus_seg.errors import UsageError, unknown_name
from fundus_seg.evaluation.metric_table import DEFAULT_METRICS, METRICS
from fundus_seg.plugins import is_plugin

if TYPE_CHECKING:
    from fundus_seg.data.mask_files import MaskPairs
    from fundus_seg.progress import Progress

TableFormat = Literal["rich", "markdown", "latex", "csv", "json"]

_PLUGIN = "package.module:factory"

Data = Annotated[
    str | None,
    typer.Option(
        help="Folder with Domain1..4, a YAML file that describes domains of your own (see docs/domains.md), or "
        "'phantom'. Default: $FUNDUS_SEG_DATA, then data/Fundus."
    ),
]
RunData = Annotated[
    str | None,
    typer.Option(
        help="Data root to score on: a folder, a YAML file of domains, or 'phantom' (default: the one that each run "
        "was trained on)."
    ),
]
Root = Annotated[str, typer.Argument(help="Data root: a folder, a YAML file of domains, or 'phantom'.")]
Config = Annotated[str, typer.Option(help="Preset, or a YAML file that holds what differs from one.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Change one setting, as optim.lr=3e-4. Repeat for more settings.")
]
Out = Annotated[Path, typer.Option(file_okay=False, help="Folder that run folders are written to.")]
Runs = Annotated[
    list[Path] | None, typer.Argument(help="Run folders, or folders with runs below them (default: runs).")
]
Operator = Annotated[
    str | None,
    typer.Option(help=f"Operator (default: tvconv), one of: {', '.join(OPERATORS)}; or your own, as {_PLUGIN}."),
]
TRUST_MEASURED = "measured"
"""The value of `evaluate --trust` where it stands alone."""
TrustMeasured = Annotated[
    list[str] | None,
    typer.Option(
        help="Alone: also measure on the unseen domain what trust is worth: predicted DSC, intervals, failures caught. "
        f"With {_PLUGIN}: import this operator of your own, since a checkpoint alone imports no code.",
    ),
]
_OPERATORS = "Operators, separated by commas; see `fundus-seg train --help`."
DEFAULT_OPERATORS = "conv,depthwise,tvconv"
"""The operators of an experiment, unless the user names others."""
Operators = Annotated[str | None, typer.Option(help=_OPERATORS, show_default=DEFAULT_OPERATORS)]
AllOperators = Annotated[str, typer.Option(help=_OPERATORS, show_default="all of them")]
Trust = Annotated[
    list[str] | None,
    typer.Option(
        help=f"Import this operator of your own, {_PLUGIN}, since a checkpoint alone imports no code. Repeat for more."
    ),
]
ProbeHoldout = Annotated[
    bool,
    typer.Option(
        "--probe-holdout",
        help="Score the unseen domain after each epoch, and keep the best epoch as oracle.ckpt; the run itself does "
        "not change by a bit.",
    ),
]
Checkpoint = Annotated[CheckpointName, typer.Option(help="Checkpoint whose scores are compared.")]
Scoring = Annotated[
    str | None,
    typer.Option(
        help="Preset or YAML file whose scoring protocol is used (default: the protocol of each run's own settings)."
    ),
]
Metrics = Annotated[str, typer.Option(help=f"Metrics, separated by commas, any of: {', '.join(METRICS)}.")]
METRICS_SHOWN = ",".join(DEFAULT_METRICS)
"""Metrics of a table, unless the user names others."""
Plots = Annotated[
    Path | None,
    typer.Option(file_okay=False, help="Folder for box plots, Bland-Altman plots and learning curves, as PNG and SVG."),
]
NetworkPrecision = Annotated[
    Precision,
    typer.Option(
        help="What the network computes in. bf16 is faster where the hardware supports it, and changes a few pixels."
    ),
]
NetworkViews = Annotated[
    Views | None,
    typer.Option(
        help="With flip, the network also sees the left-right mirror image of each photograph; its prediction is "
        "mirrored back, and the probabilities are averaged (default: none)."
    ),
]
DeclineBelow = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="Decline photographs whose predicted DSC, the mean of disc and cup, is below this: their masks are made "
        "all the same, and their status says it. It takes `fundus-seg calibrate` before.",
    ),
]
Ensemble = Annotated[
    bool,
    typer.Option(
        "--ensemble",
        help="Take the runs that differ in their seed alone as one network, the mean of their probabilities: a "
        "protocol of its own.",
    ),
]
Format = Annotated[
    TableFormat,
    typer.Option(
        "--format",
        help="How tables are printed. csv (six digits) and json hold the numbers, for programs, and are one document "
        "per table.",
    ),
]
Labels = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        metavar="OLD=NEW",
        help="Short name of a column in tables and plots: of an operator, with its recipe where it has several. Repeat "
        "for more.",
    ),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="Exit with 3 if anything was left out or true masks are odd; a line says what, with or without it.",
    ),
]
Address = Annotated[
    str | None,
    typer.Option(help="Address of the Ray cluster (default: $RAY_ADDRESS, or a cluster on this machine)."),
]
OverlayFormat = Annotated[
    PictureFormat, typer.Option(help="Format of the pictures: jpeg is small, png keeps every pixel.")
]
_PREDICTIONS = typer.Option(
    "--pred",
    help="Predicted masks: a folder, or a pattern such as 'out/{name}/seg.nii.gz'. Give it twice for binary masks: "
    "first the disc, then the cup.",
)
_TRUTHS = typer.Option("--truth", help="True masks, given in the same way; cases are matched by name.")
Predictions = Annotated[list[str], _PREDICTIONS]
Truths = Annotated[list[str], _TRUTHS]
PredictionsIfAny = Annotated[list[str] | None, _PREDICTIONS]
TruthsIfAny = Annotated[list[str] | None, _TRUTHS]
PredictionCoding = Annotated[
    str | None,
    typer.Option(
        "--pred-coding",
        help="Coding of the predicted masks: labels (0, 1 rim, 2 cup), dofe (255, 128 rim, 0 cup) or '{cup: 2, rim: 1, "
        "background: 0}' (default: recognised).",
    ),
]
TruthCoding = Annotated[
    str | None,
    typer.Option("--truth-coding", help="Coding of the true masks, written in the same way (default: recognised)."),
]


def _choice(what: str, names: Sequence[str]) -> dict[str, Any]:
    """The arguments of an option that may be repeated, each time with one of the names."""

    def parse(text: str) -> str:
        if text not in names:
            raise UsageError(unknown_name(what, text, names))
        return text

    return {"parser": parse, "metavar": f"[{'|'.join(names)}]"}


Trackers = Annotated[
    list[str] | None,
    typer.Option(
        "--track",
        **_choice("tracker", get_args(Tracker)),
        help="Also show the run in TensorBoard or MLflow. Repeat for both.",
    ),
]
Perturbed = Annotated[
    list[str] | None,
    typer.Option(
        "--perturb",
        **_choice("map", get_args(Perturbation)),
        help="Also score photographs that are moved together with their true masks, at several strengths, and print "
        "how the scores change. With --plots, draw the curves. Repeat for more.",
    ),
]
Strengths = Annotated[
    str | None,
    typer.Option(
        help="Strengths of --perturb, separated by commas: degrees of rotate and shear, factors of scale, shares of "
        "the frame's width of translate (default: seven of each)."
    ),
]


def names(text: str) -> list[str]:
    """The names in `a, b`."""
    return [name.strip() for name in text.split(",")]


def numbers(text: str, option: str) -> list[float]:
    """The numbers in `0.1, 0.2`.

    Raises:
        UsageError: one is no number.
    """
    try:
        return [float(name) for name in names(text)]
    except ValueError as error:
        raise UsageError(f"{option} {text}: write numbers, separated by commas") from error


def labels(texts: Iterable[str]) -> dict[str, str]:
    """New names by old ones, from texts such as `OLD=NEW`; an old name may hold `=`, as recipes do.

    Raises:
        UsageError: one is not of this form.
    """
    found = {}
    for text in texts:
        old, equals, new = text.rpartition("=")
        if not (old and equals and new):
            raise UsageError(f"--label {text}: write OLD=NEW, as --label tvconv-lr=0.0003-47b65c81=slow")
        found[old] = new
    return found


def mask_pairs(
    pred: Sequence[str],
    truth: Sequence[str],
    pred_coding: str | None,
    truth_coding: str | None,
    progress: Progress,
    unannotated_cup: Unannotated = "never",
) -> MaskPairs:
    """The masks that the options name."""
    from fundus_seg.data.domain_file import read_coding
    from fundus_seg.data.mask_files import pair_masks

    predicted, true = (read_coding(text) if text else None for text in (pred_coding, truth_coding))
    codings = {"prediction_coding": predicted, "truth_coding": true}
    return pair_masks(pred, truth, **codings, unannotated_cup=unannotated_cup, progress=progress)


def paragraphs(text: str | None) -> str:
    """A docstring as help text: each paragraph is one line, since --help breaks lines where the text does."""
    return "\n\n".join(" ".join(each.split()) for each in (text or "").split("\n\n"))


class Alone(NamedTuple):
    """An option that may stand without a value.

    Attributes:
        value: the value that it then has.
        takes: whether the argument behind it is a value of it.
    """

    value: str
    takes: Callable[[str], bool]


def command_class(
    renamed: Mapping[str, str] | None = None, alone: Mapping[str, Alone] | None = None
) -> type[TyperCommand]:
    """A command class that expands `~` in `--out=~/runs`, where no shell does, and refuses former spellings of options.

    Args:
        renamed: new spellings of options by former ones, which --help does not show.
        alone: the options that may stand without a value.
    """

    class Command(TyperCommand):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            for old in (arg.partition("=")[0] for arg in args):
                if renamed and old in renamed:
                    raise UsageError(f"{ctx.command_path}: {old} is now called {renamed[old]}")
            return super().parse_args(ctx, _with_values([_at_home(arg) for arg in args], alone or {}))

    return Command


def names_operator(text: str) -> bool:
    """Whether what follows `--trust` is an operator, or is meant as one: it is no option and no path that exists."""
    return is_plugin(text) or not (not text or text.startswith("-") or Path(text).exists())


def _with_values(args: list[str], alone: Mapping[str, Alone]) -> list[str]:
    """The arguments with its value in each option that stands alone."""
    end = args.index("--") if "--" in args else len(args)
    following = [*args[1:], ""]
    return [
        f"{arg}={alone[arg].value}" if at < end and arg in alone and not alone[arg].takes(following[at]) else arg
        for at, arg in enumerate(args)
    ]


def _at_home(argument: str) -> str:
    """The argument with the home folder in place of a `~` that begins it, or the value of its option."""
    option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    if value != "~" and not value.startswith("~/"):
        return argument
    try:
        return f"{option}{equals}{Path(value).expanduser()}"
    except RuntimeError as error:
        raise UsageError(f"{argument}: there is no home folder; set $HOME, or write ./~ for this very name") from error
