"""Methods of domain generalisation and operators, each with each, on the phantom's unseen domains.

    python benchmarks/methods.py --out runs

Every run stands in the folder that `fundus-seg benchmark --vary train.method=...` with the same settings gives it, and
what is there already is not trained again. The page goes to `methods.md`. It takes about ten minutes of one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fundus_seg.builtins import METHODS
from fundus_seg.data import open_root
from fundus_seg.evaluation.records import Evaluation
from fundus_seg.evaluation.score_run import evaluate
from fundus_seg.experiments import choose_executor, plan, run_experiment
from fundus_seg.protocol import STRUCTURES
from fundus_seg.reporting import operators_table, score_table
from fundus_seg.runs.identity import MEAN_MASK

OPS = ("conv", "depthwise", "tvconv")
HOLDOUTS = ("A", "C")
SEEDS = range(3)
SETTINGS = ("train.epochs=2", "train.steps_per_epoch=20", "train.threads=1", "train.precision=fp32")
Scores = Mapping[tuple[str, str], Sequence[Evaluation]]
"""Evaluations of all holdouts and seeds, by method and operator."""


def main() -> None:
    """Train and score what is missing, print the page and write it to its file."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, required=True, help="folder of the runs")
    options.add_argument("--page", type=Path, default=Path(__file__).with_name("methods.md"))
    options.add_argument("--holdouts", default=",".join(HOLDOUTS), help="unseen domains, separated by commas")
    arguments = options.parse_args()
    text = report(*measure(arguments.out, arguments.holdouts.split(",")))
    print(text)
    arguments.page.write_text(text, "utf8")


def measure(out: Path, holdouts: Sequence[str]) -> tuple[Scores, Scores]:
    """The scores of all runs, and those of plain training with batch norms adapted to the unseen domain."""
    runs = plan(
        open_root("phantom"),
        out,
        ops=OPS,
        seeds=SEEDS,
        holdouts=holdouts,
        vary=[f"train.method={','.join(METHODS)}"],
        config="tiny",
        overrides=SETTINGS,
    )
    result = run_experiment(runs, choose_executor("serial", runs))
    result.check()
    scores: dict[tuple[str, str], list[Evaluation]] = {}
    adapted: dict[tuple[str, str], list[Evaluation]] = {}
    for run, evaluation in zip(runs, result.evaluations, strict=True):
        where = run.config.train.method, run.config.model.op
        scores.setdefault(where, []).append(evaluation)
        if run.config.train.method == "none":
            adapted.setdefault(where, []).append(evaluate(run.folder, adapt_batch_norms=0))
    return scores, adapted


def report(scores: Scores, adapted: Scores) -> str:
    """The text of the page: what was trained, the scores, the differences to plain training, and the adapted norms."""
    evaluations = [each for own in scores.values() for each in own]
    holdouts = sorted({each.meta.run.holdout for each in evaluations})
    cases = evaluations[0].cases["case"].nunique()
    lines = [
        "# Methods of domain generalisation, on the phantom",
        "",
        "**The phantom's photographs are synthetic: these numbers say nothing about patients.**",
        "",
        f"Written by `python benchmarks/methods.py --out runs --holdouts {','.join(holdouts)}`. It trains with preset",
        f"`tiny` and `{' '.join(SETTINGS)}`:",
        "64x64 pixels, an encoder from scratch, 40 steps of six photographs, after which no network is trained to its",
        f"end. {len(SEEDS)} seeds, {cases} test photographs of each unseen domain; selection: source-validation.",
        "",
        "In brackets: 95 % interval, bootstrapped over runs and cases.",
    ]
    for structure in STRUCTURES:
        for holdout in holdouts:
            lines += ["", f"Dice of the {structure} on {holdout}, %:", "", *_table(scores, _cells(structure, holdout))]
    plain = {op: own for (method, op), own in scores.items() if method == "none"}
    compared = {where: own for where, own in scores.items() if where[0] != "none"}
    differences = {where: _difference(own, plain[where[1]]) for where, own in compared.items()}
    apart = sum(low > 0 or high < 0 for _, low, high in differences.values())
    lines += [
        "",
        "Each method minus `none`, in points of Dice: mean over structures and unseen domains, runs paired by seed and",
        f"cases by name. {apart} of {len(differences)} intervals leave out 0; they are not corrected for their number.",
        "",
        *_table(compared, lambda where, _: "{:+.1f} [{:+.1f}, {:+.1f}]".format(*differences[where])),
        "",
        "## Batch norms adapted to the unseen domain: transductive",
        "",
        "The runs of `none` scored again with `--adapt-batch-norms 0`: the statistics of all the unseen domain's",
        "photographs replace the source's before the first one is predicted.",
    ]
    for structure in STRUCTURES:
        for holdout in holdouts:
            lines += ["", f"Dice of the {structure} on {holdout}, %, transductive:", ""]
            lines += _table(adapted, _cells(structure, holdout), "none, adapted")
    lines += [
        "",
        "## What this cannot tell",
        "",
        "- Whether a method helps on a real camera, with pretrained weights, or at 256x256 pixels.",
        "- How good a method is after a longer training. In 40 steps V-REx does not leave its warm-up of 500, with the",
        "  weight 1 of the variance, and the weights of GroupDRO, whose step size is 0.01, hardly leave 1 / D: most of",
        "  what parts it from `none` here is chance.",
        "- Which options of a method are best: all are the defaults.",
        "- Differences that are small beside the intervals, with so few seeds and cases.",
        "",
    ]
    return "\n".join(lines)


def _cells(structure: str, holdout: str) -> Callable[[tuple[str, str], Sequence[Evaluation]], str]:
    def text(_: tuple[str, str], own: Sequence[Evaluation]) -> str:
        frame = score_table(own, ["dsc"]).frame
        cell = frame["structure"].eq(structure) & frame["holdout"].eq(holdout) & frame["operator"].ne(MEAN_MASK)
        (row,) = frame[cell].itertuples()
        return f"{row.mean:.1f} [{row.low:.1f}, {row.high:.1f}]"

    return text


def _difference(own: Sequence[Evaluation], plain: Sequence[Evaluation]) -> tuple[float, float, float]:
    pair = [own[0].meta.column, plain[0].meta.column]
    last = operators_table([*own, *plain], pair).frame.iloc[-1]
    return last["difference"], last["low"], last["high"]


def _table(
    scores: Scores, cell: Callable[[tuple[str, str], Sequence[Evaluation]], str], name: str | None = None
) -> list[str]:
    """Methods x operators, as lines of Markdown."""
    methods = dict.fromkeys(method for method, _ in scores)
    rows = [[name or method, *(cell((method, op), scores[method, op]) for op in OPS)] for method in methods]
    return [
        f"| method | {' | '.join(OPS)} |",
        f"|---|{'---:|' * len(OPS)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


if __name__ == "__main__":
    main()
