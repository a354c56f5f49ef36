from __future__ import annotations

import io
import math
from pathlib import Path

import pandas as pd
import pytest

from fundus_seg.errors import ProtocolError, UsageError
from fundus_seg.evaluation.cases import DISTANCES, OVERLAPS
from fundus_seg.evaluation.evaluate import Evaluation, EvaluationMeta, RunName
from fundus_seg.evaluation.tables import build_table, build_tidy_table, case_values, summarise, tables
from fundus_seg.protocol import Scoring
from fundus_seg.table import render

NAN = float("nan")


def evaluation(
    dsc, hd, *, operator="tvconv", holdout="A", seed=0, phantom=False, selection="source-validation",
    scoring=None, digest="d", truth=10, preset="paper", precision="fp32",
):  # fmt: skip
    """An evaluation with the same values for disc and cup; `truth` is a pixel count or one for each case."""
    truths = truth if isinstance(truth, list) else [truth] * len(dsc)
    rows = [
        {
            "structure": structure,
            "case": str(case),
            **dict.fromkeys(OVERLAPS, d),
            **dict.fromkeys(DISTANCES, h),
            "truth_pixels": t,
        }
        for case, (d, h, t) in enumerate(zip(dsc, hd, truths, strict=True))
        for structure in ("disc", "cup")
    ]
    protocol = scoring or Scoring()
    meta = EvaluationMeta(
        protocol=protocol,
        protocol_digest=protocol.digest(),
        data={f"{holdout}/test": digest},
        phantom=phantom,
        selection=selection,
        checkpoint="best",
        checkpoint_sha256="",
        run=RunName(preset=preset, operator=operator, holdout=holdout, seed=seed, precision=precision),
        versions={},
    )
    return Evaluation(Path(f"{operator}-{seed}.csv"), meta, pd.DataFrame(rows))


def cell(table, metric, structure, holdout, column):
    position = 3 + table.columns.index(column)
    return next(
        row[position] for row in table.rows if (row[0][:4].strip(), row[1][:4], row[2]) == (metric, structure, holdout)
    )


def test_cells_are_means_over_runs_of_means_over_cases():
    runs = [evaluation([0.8, 0.9], [10, 20], seed=0), evaluation([0.9, 1.0], [10, 10], seed=1)]
    table = build_table(runs)
    # Run means 85 and 95: mean 90, SD with n - 1 is sqrt(2 · 5²) = 7.07. Distances 15 and 10.
    assert cell(table, "DSC", "disc", "A", "tvconv") == "90.00 ± 7.07"
    assert cell(table, "HD [", "cup ", "A", "tvconv") == "12.50 ± 3.54"


def test_means_stand_below_and_never_hide_a_missing_cell():
    runs = [
        evaluation([0.8], [10], operator="conv", holdout="A"),
        evaluation([0.9], [10], operator="conv", holdout="B"),
        evaluation([0.7], [10], operator="tvconv", holdout="A"),
    ]
    table = build_table(runs, ["dsc"])
    assert table.columns == ("conv", "tvconv")
    assert table.rows[-1] == ("DSC [%]", "mean", "A, B", "85.00", "missing")
    assert cell(table, "DSC", "disc", "B", "tvconv") == "missing"


def test_empty_predictions_are_penalised_and_empty_truths_excluded_and_both_counted():
    run = evaluation([0.8, 0.0, NAN], [10, NAN, NAN], truth=[10, 10, 0])
    table = build_table([run])
    assert cell(table, "DSC", "disc", "A", "tvconv") == "40.00"  # (80 + 0) / 2
    assert cell(table, "HD [", "disc", "A", "tvconv") == "55.00"  # (10 + 100) / 2
    assert "tvconv: disc 1 penalised, 1 excluded of 3; cup 1 penalised, 1 excluded of 3" in table.notes


def test_penalty_is_the_protocol_s():
    run = evaluation([0.8, 0.0], [10, NAN], scoring=Scoring(empty_distance=50))
    assert summarise(case_values([run]))["hd"].tolist() == [30, 30]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"scoring": Scoring(threshold=0.5)},
            r"two scoring protocols \(threshold\) in one table: 0.75 in tvconv-0.csv, 0.5 in tvconv-1.csv",
        ),
        (
            {"scoring": Scoring(inference="native")},
            r"two scoring protocols \(inference\) in one table: resize in .*, native in .* and --inference",
        ),
        ({"phantom": True}, "two kinds of photographs in one table: real in .*, synthetic in"),
        ({"digest": "e"}, r"two sets of photographs \(A/test\) in one table: d in .*, e in"),
    ],
)
def test_what_must_not_mix_is_refused_by_name(change, message):
    runs = [evaluation([0.8], [1]), evaluation([0.8], [1], seed=1, **change)]
    with pytest.raises(ProtocolError, match=message):
        build_table(runs)


def test_a_table_says_when_photographs_were_seen_at_their_own_size():
    probe = build_table([evaluation([0.8], [1], scoring=Scoring(inference="native"))])
    assert probe.notes[-1].endswith("each photograph seen at its own size")
    assert "own size" not in build_table([evaluation([0.8], [1])]).notes[-1]


def test_columns_say_what_tells_them_apart():
    runs = [evaluation([0.8], [1]), evaluation([0.9], [1], selection="oracle", preset="released-code")]
    table = build_table(runs)
    assert table.columns == ("tvconv (paper) [source-validation]", "tvconv (released-code) [oracle]")
    assert "chosen on the scored cases themselves" in table.title


def test_columns_stand_in_the_order_of_the_operators():
    ordered = ["depthwise", "depthwise-lr=0.1-1a2b3c4d", "tvconv", "depthwise-dilated", "depthwise-wide", "alien"]
    runs = [evaluation([0.8], [1], operator=operator) for operator in reversed(ordered)]
    assert build_table(runs).columns == tuple(ordered)
    runs += [evaluation([0.8], [1], operator="depthwise-wide", selection="oracle")]
    assert build_table(runs).columns[-3:-1] == ("depthwise-wide [oracle]", "depthwise-wide [source-validation]")


def test_a_run_counts_once():
    with pytest.raises(ProtocolError, match="seed 0 stands twice"):
        build_table([evaluation([0.8], [1]), evaluation([0.8], [1])])


def test_numbers_of_runs_are_those_of_the_cells():
    runs = [evaluation([0.8], [1], operator="conv", seed=seed) for seed in range(3)]
    runs.append(evaluation([0.8], [1], seed=7))
    assert "1 to 3 runs a cell" in build_table(runs).title
    assert "1 run a cell" in build_table(runs[:1]).title


def test_tables_stand_apart_where_they_must_not_mix():
    runs = [evaluation([0.8], [1]), evaluation([0.7], [1], phantom=True), evaluation([0.6], [1], seed=1)]
    assert [table.title.startswith("PHANTOM") for table in tables(runs)] == [False, True]


def test_phantom_is_named_first():
    table = build_table([evaluation([0.8], [1], phantom=True)])
    assert table.title.startswith("PHANTOM, synthetic photographs")
    for form in ("markdown", "latex", "csv"):
        assert any("PHANTOM" in line for line in render(table, form).splitlines() if not line.startswith("%"))


def test_forms():
    table = build_table([evaluation([0.8], [1]), evaluation([0.9], [1], seed=1)], ["dsc"])
    markdown = render(table, "markdown")
    assert "| metric | structure | unseen | tvconv |" in markdown
    assert "| DSC [%] | disc (OD) | A | 85.00 ± 7.07 |" in markdown
    latex = render(table, "latex")
    assert r"DSC [\%] & disc (OD) & A & 85.00 $\pm$ 7.07 \\" in latex
    assert latex.count(r"\toprule") == latex.count(r"\bottomrule") == 1
    assert render(table, "csv").splitlines()[4] == "DSC [%],disc (OD),A,85.00 ± 7.07"
    with pytest.raises(UsageError, match="did you mean 'markdown'"):
        render(table, "markdwn")


def graded(operator, offset, **options):
    """Ten cases whose DSC is `offset` points above a common value; the test tells two such operators apart."""
    return evaluation([0.5 + case / 100 + offset / 100 for case in range(10)], [10] * 10, operator=operator, **options)


def bold_columns(table, row):
    return {column for number, column in enumerate(table.columns) if (row, number) in table.bold}


def test_bold_is_the_best_and_what_the_test_does_not_tell_from_it():
    """Of ten pairs that all differ one way the two-sided p is 2 / 2¹⁰; of five against five it is near 1."""
    mixed = graded("depthwise", 4)
    mixed.cases["dsc"] += [(-1) ** (row // 2) * 0.01 * (1 + row // 2) for row in range(20)]  # mean 0.5 points lower
    table = build_table([graded("conv", 0), mixed, graded("tvconv", 4)], ["dsc"])
    assert [bold_columns(table, row) for row in range(3)] == [{"depthwise", "tvconv"}] * 3
    assert table.notes[-1].startswith("bold: the best of a row, and what a Wilcoxon")
    assert "**" in render(table, "markdown").split("\n", 1)[1]


def test_less_is_better_for_distances():
    near, far = (evaluation([0.5] * 8, [hd + case for case in range(8)], operator=op) for op, hd in
                 (("conv", 1), ("tvconv", 20)))  # fmt: skip
    table = build_table([far, near], ["hd", "dsc"])
    assert [bold_columns(table, row) for row in range(3)] == [{"conv"}] * 3
    assert [bold_columns(table, row) for row in range(3, 6)] == [{"conv", "tvconv"}] * 3  # equal: nothing differs


def test_one_operator_is_not_bold():
    table = build_table([graded("conv", 0), graded("conv", 1, seed=1)])
    assert not table.bold
    assert not any("bold" in note for note in table.notes)


def test_a_column_with_a_missing_cell_is_not_the_best_mean():
    runs = [graded("conv", 0), graded("conv", 0, holdout="B"), graded("tvconv", 5), graded("untied", -5)]
    runs.append(graded("untied", -5, holdout="B"))
    table = build_table(runs, ["dsc"])
    assert [row[1:] for row in table.rows] == [
        ("disc (OD)", "A", "54.50", "59.50", "49.50"),
        ("disc (OD)", "B", "54.50", "missing", "49.50"),
        ("cup (OC)", "A", "54.50", "59.50", "49.50"),
        ("cup (OC)", "B", "54.50", "missing", "49.50"),
        ("mean", "A, B", "54.50", "missing", "49.50"),
    ]
    assert [bold_columns(table, row) for row in range(5)] == [{"tvconv"}, {"conv"}, {"tvconv"}, {"conv"}, {"conv"}]


def test_another_test_may_choose_what_is_bold():
    table = build_table(
        [graded("conv", 0), graded("tvconv", 9)],
        ["dsc"],
        ties=lambda cases, metric, structure, holdout: {"conv"} if structure == "cup" else set(),
        meaning="bold: as asked",
    )
    assert [bold_columns(table, row) for row in range(3)] == [set(), {"conv"}, set()]
    assert table.notes[-1] == "bold: as asked"


def test_csv_is_a_row_a_cell_with_units_and_missing_ones():
    runs = [evaluation([0.8], [10], operator="conv"), evaluation([0.9], [20], operator="conv", seed=1)]
    runs.append(evaluation([0.7], [10], holdout="B"))
    read = pd.read_csv(io.StringIO(render(build_tidy_table(runs, ["dsc", "hd"]), "csv")), comment="#")
    assert list(read) == ["metric", "unit", "structure", "holdout", "operator", "mean", "sd", "runs"]
    assert len(read) == 2 * 2 * 2 * 2
    cells = read.set_index(["metric", "unit", "structure", "holdout", "operator"]).sort_index()
    assert cells.loc[("DSC", "%", "OD", "A", "conv")].tolist() == [85, pytest.approx(7.0711), 2]
    assert cells.loc[("HD", "px of 800", "OC", "A", "conv")].tolist() == [15, pytest.approx(7.0711), 2]
    missing, alone = cells.loc[("DSC", "%", "OC", "B")].to_numpy()  # conv, tvconv
    assert alone[0] == 70
    assert math.isnan(alone[1])  # of one run there is no SD
    assert math.isnan(missing[0])
    assert missing[2] == 0


def test_unknown_metric_offers_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'hd95'"):
        build_table([evaluation([0.8], [1])], ["hd96"])


def test_runs_trained_in_two_precisions_are_two_columns():
    runs = [evaluation([0.8], [1]), evaluation([0.9], [1], precision="bf16", seed=1)]
    assert build_table(runs).columns == ("tvconv (bf16)", "tvconv (fp32)")
    assert build_table(runs[1:]).columns == ("tvconv",)
