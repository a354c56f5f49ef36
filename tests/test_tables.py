from __future__ import annotations

import io
import json
import math
import re

import numpy as np
import pandas as pd
import pytest
from small_runs import evaluation_of, identity

from fundus_seg.errors import ProtocolError, UsageError
from fundus_seg.evaluation.metric_table import DEFAULT_METRICS, distances, overlaps
from fundus_seg.protocol import Scoring
from fundus_seg.reporting.frames import by_kind, captions_of, case_values, labelled, summarise, with_labels
from fundus_seg.reporting.table import render
from fundus_seg.reporting.tables import score_table
from fundus_seg.statistics.intervals import bootstrap_interval, wilcoxon_p
from fundus_seg.statistics.ties import BOLD, OVER_CASES, OVER_RUNS, best_columns

NAN = float("nan")


def evaluation(
    dsc, hd, *, operator="tvconv", holdout="A", seed=0, phantom=False, selection="source-validation",
    scoring=None, digest="d", truth=10, preset="paper", precision="fp32", recipe="",
):  # fmt: skip
    """An evaluation with the same values for disc and cup; `truth` is a pixel count or one for each case."""
    truths = truth if isinstance(truth, list) else [truth] * len(dsc)
    rows = [
        {
            "structure": structure,
            "case": str(case),
            **dict.fromkeys(overlaps(), d),
            **dict.fromkeys(distances(), h),
            "truth_pixels": t,
        }
        for case, (d, h, t) in enumerate(zip(dsc, hd, truths, strict=True))
        for structure in ("disc", "cup")
    ]
    run = identity(operator=operator, recipe=recipe, preset=preset, precision=precision, holdout=holdout, seed=seed)
    data = {f"{holdout}/test": digest}
    return evaluation_of(rows, run, protocol=scoring or Scoring(), data=data, phantom=phantom, selection=selection)


def table_of(evaluations, metrics=DEFAULT_METRICS):
    """The layout of their scores."""
    return score_table(evaluations, metrics).layout


def read_csv(report):
    return pd.read_csv(io.StringIO(render(report, "csv")), comment="#", keep_default_na=False, na_values=["NA"])


def cell(table, metric, structure, holdout, column):
    position = 3 + table.columns.index(column)
    return next(
        row[position] for row in table.rows if (row[0][:4].strip(), row[1][:4], row[2]) == (metric, structure, holdout)
    )


def test_cells_are_means_over_runs_of_means_over_cases():
    runs = [
        evaluation([dsc, dsc + 0.1], [10, hd], seed=seed)
        for seed, (dsc, hd) in enumerate(((0.7, 16), (0.8, 14), (0.9, 12)))
    ]
    table = table_of(runs)
    # Run means 75, 85 and 95: mean 85, SD with n - 1 is sqrt((10² + 10²) / 2) = 10. Distances 13, 12 and 11.
    assert cell(table, "DSC", "disc", "A", "tvconv") == "85.00 ± 10.00"
    assert cell(table, "HD [", "cup ", "A", "tvconv") == "12.00 ± 1.00"
    assert not any("brackets" in note for note in table.notes)


@pytest.mark.parametrize("runs", [1, 2])
def test_cells_of_few_runs_have_an_interval_over_cases(runs):
    """Cases 50, 51, ... 59, in both runs the same: mean 54.5, SD 3.03, standard error 0.96, t of 9 degrees 2.26."""
    table = table_of([graded("conv", 0, seed=seed) for seed in range(runs)], ["dsc"])
    mean, low, high = map(float, re.fullmatch(r"(.+) \[(.+), (.+)\]", cell(table, "DSC", "disc", "A", "conv")).groups())
    assert (mean, low, high) == (54.5, pytest.approx(52.3, abs=0.15), pytest.approx(56.7, abs=0.15))
    assert any("of these networks alone; says nothing about other seeds" in note for note in table.notes)
    assert (
        cell(table_of([evaluation([0.8], [1])]), "DSC", "disc", "A", "tvconv") == "80.00"
    )  # of one case there is none


def test_means_stand_below_and_never_hide_a_missing_cell():
    runs = [
        evaluation([0.8], [10], operator="conv", holdout="A"),
        evaluation([0.9], [10], operator="conv", holdout="B"),
        evaluation([0.7], [10], operator="tvconv", holdout="A"),
    ]
    table = table_of(runs, ["dsc"])
    assert table.columns == ("conv", "tvconv")
    assert table.rows[-1] == ("DSC [%]", "mean", "A, B", "85.00", "missing")
    assert cell(table, "DSC", "disc", "B", "tvconv") == "missing"


def test_empty_predictions_are_penalised_and_empty_truths_excluded_and_both_counted():
    run = evaluation([0.8, 0.0, NAN], [10, NAN, NAN], truth=[10, 10, 0])
    table = table_of([run])
    assert cell(table, "DSC", "disc", "A", "tvconv").startswith("40.00 [")  # (80 + 0) / 2
    assert cell(table, "HD [", "disc", "A", "tvconv").startswith("55.00 [")  # (10 + 100) / 2
    assert "tvconv: disc 1 penalised, 1 excluded of 3; cup 1 penalised, 1 excluded of 3" in table.notes


def test_penalty_is_the_protocol_s():
    run = evaluation([0.8, 0.0], [10, NAN], scoring=Scoring(empty_distance=50))
    assert summarise(case_values([run]))["hd"].tolist() == [30, 30]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"scoring": Scoring(threshold=0.5)},
            r"two scoring protocols \(threshold\) in one table: 0.75 in tvconv-A-0-.*, 0.5 in tvconv-A-1-",
        ),
        (
            {"scoring": Scoring(inference="native")},
            r"two scoring protocols \(inference\) in one table: resize in .*, native in .*, --inference and ",
        ),
        ({"phantom": True}, "two kinds of photographs in one table: real in .*, synthetic in"),
        ({"digest": "e"}, r"two sets of photographs \(A/test\) in one table: d in .*, e in"),
    ],
)
def test_what_must_not_mix_is_refused_by_name(change, message):
    runs = [evaluation([0.8], [1]), evaluation([0.8], [1], seed=1, **change)]
    with pytest.raises(ProtocolError, match=message):
        table_of(runs)


def test_a_table_says_when_photographs_were_seen_at_their_own_size():
    probe = table_of([evaluation([0.8], [1], scoring=Scoring(inference="native"))])
    assert any(note.endswith("each photograph seen at its own size") for note in probe.notes)
    assert not any("own size" in note for note in table_of([evaluation([0.8], [1])]).notes)


def test_a_table_spells_out_a_protocol_that_is_not_the_default():
    default = "\n".join(table_of([evaluation([0.8], [1])]).notes)
    assert (
        f"penalised: empty prediction, distance 100; excluded: empty truth; scoring protocol {Scoring().digest()}"
        in default
    )
    assert "not the default" not in default
    scoring = Scoring(dice_smoothing=1, threshold=0.5, empty_check="cup", largest_component=False)
    other = "\n".join(table_of([evaluation([0.8], [1], scoring=scoring)]).notes)
    assert "penalised: empty prediction, of the structure itself or of the cup, distance 100" in other
    assert (
        f"scoring protocol {scoring.digest()}, not the default: threshold 0.5 (default 0.75), "
        "largest_component False (default True), dice_smoothing 1.0 (default 0.0), empty_check cup (default own)"
    ) in other


def test_distances_worse_than_a_miss_are_counted():
    run = evaluation([0.8, 0.0, 0.5], [120, NAN, 99])
    assert "2 distances above the penalty of 100" in table_of([run], ["hd", "dsc"]).notes  # of disc and of cup
    assert not any("above the penalty" in note for note in table_of([run], ["dsc"]).notes)


def test_columns_say_what_tells_them_apart():
    runs = [evaluation([0.8], [1]), evaluation([0.9], [1], selection="oracle", preset="released-code")]
    table = table_of(runs)
    assert table.columns == ("tvconv (paper) [source-validation]", "tvconv (released-code) [oracle]")
    assert "chosen on the scored cases themselves" in table.title


def test_a_recipe_that_all_runs_share_is_a_note_and_no_column():
    recipe = "batch_per_domain=12-epochs=10-47b65c81"
    shared = table_of(
        [evaluation([0.8], [1], operator=op, recipe=recipe) for op in ("depthwise-wide", "tvconv")], ["dsc"]
    )
    assert shared.columns == ("tvconv", "depthwise-wide")
    assert f"recipe of all runs, where it differs from the preset: {recipe}" in shared.notes
    apart = table_of([evaluation([0.8], [1], recipe=own) for own in (recipe, "")], ["dsc"])
    assert apart.columns == ("tvconv", f"tvconv-{recipe}")
    assert not any(note.startswith("recipe") for note in apart.notes)


def test_columns_stand_in_the_order_of_the_operators():
    ordered = ["depthwise", "depthwise-lr=0.1-1a2b3c4d", "tvconv", "depthwise-dilated", "depthwise-wide", "alien"]
    operators = [name.removesuffix("-lr=0.1-1a2b3c4d") for name in ordered]
    recipes = ["", "lr=0.1-1a2b3c4d", "", "", "", ""]
    runs = [
        evaluation([0.8], [1], operator=operator, recipe=recipe)
        for operator, recipe in zip(operators, recipes, strict=True)
    ]
    assert table_of(runs[::-1]).columns == tuple(ordered)
    runs += [evaluation([0.8], [1], operator="depthwise-wide", selection="oracle")]
    assert table_of(runs).columns[-3:-1] == ("depthwise-wide [oracle]", "depthwise-wide [source-validation]")


def test_a_run_counts_once():
    with pytest.raises(ProtocolError, match="seed 0 stands twice"):
        table_of([evaluation([0.8], [1]), evaluation([0.8], [1])])


def test_numbers_of_runs_are_those_of_the_cells():
    runs = [evaluation([0.8], [1], operator="conv", seed=seed) for seed in range(3)]
    runs.append(evaluation([0.8], [1], seed=7))
    assert "1 to 3 runs per cell" in table_of(runs).title
    assert "1 run per cell" in table_of(runs[:1]).title


def test_tables_stand_apart_where_they_must_not_mix():
    runs = [evaluation([0.8], [1]), evaluation([0.7], [1], phantom=True), evaluation([0.6], [1], seed=1)]
    assert [table_of(kind).title.startswith("PHANTOM") for kind in by_kind(runs)] == [False, True]


def test_phantom_is_named_first():
    report = score_table([evaluation([0.8], [1], phantom=True)])
    assert report.layout.title.startswith("PHANTOM, synthetic photographs")
    for form in ("markdown", "latex", "csv", "json"):
        assert any("PHANTOM" in line for line in render(report, form).splitlines() if not line.startswith("%"))


def test_forms():
    report = score_table([evaluation([dsc], [1], seed=seed) for seed, dsc in enumerate((0.8, 0.85, 0.9))], ["dsc"])
    markdown = render(report, "markdown")
    assert "| metric | structure | unseen | tvconv |" in markdown
    assert "| DSC [%] | disc (OD) | A | 85.00 ± 5.00 |" in markdown
    latex = render(report, "latex")
    assert r"DSC [\%] & disc (OD) & A & 85.00 $\pm$ 5.00 \\" in latex
    assert latex.count(r"\toprule") == latex.count(r"\bottomrule") == 1
    disc = read_csv(report).iloc[0]
    assert (disc["structure"], disc["operator"], disc["recipe"], disc["mean"], disc["sd"]) == (
        "disc", "tvconv", "", 85, 5,
    )  # fmt: skip
    content = json.loads(render(report, "json"))
    assert content["title"] == report.layout.title
    assert content["notes"] == [*report.layout.notes]
    assert content["rows"][0]["mean"] == pytest.approx(85)
    assert content["rows"][0]["low"] is None  # one case has no interval
    with pytest.raises(UsageError, match="did you mean 'markdown'"):
        render(report, "markdwn")


def graded(operator, offset, **options):
    """Ten cases whose DSC is `offset` points above a common value; the test tells two such operators apart."""
    return evaluation([0.5 + case / 100 + offset / 100 for case in range(10)], [10] * 10, operator=operator, **options)


def bold_columns(table, row):
    return {column for number, column in enumerate(table.columns) if (row, number) in table.bold}


def test_bold_is_the_best_and_what_the_test_does_not_tell_from_it():
    """Of ten pairs that all differ one way the two-sided p is 2 / 2¹⁰; of five against five it is near 1."""
    mixed = graded("depthwise", 4)
    mixed.cases["dsc"] += [(-1) ** (row // 2) * 0.01 * (1 + row // 2) for row in range(20)]  # mean 0.5 points lower
    table = table_of([graded("conv", 0), mixed, graded("tvconv", 4)], ["dsc"])
    assert [bold_columns(table, row) for row in range(3)] == [{"depthwise", "tvconv"}] * 3
    assert table.notes[-1] == f"{BOLD}; {OVER_CASES}"


def test_less_is_better_for_distances():
    near, far = (evaluation([0.5] * 8, [hd + case for case in range(8)], operator=op) for op, hd in
                 (("conv", 1), ("tvconv", 20)))  # fmt: skip
    table = table_of([far, near], ["hd", "dsc"])
    assert [bold_columns(table, row) for row in range(3)] == [{"conv"}] * 3
    assert [bold_columns(table, row) for row in range(3, 6)] == [{"conv", "tvconv"}] * 3  # equal: nothing differs


def test_a_cell_of_penalties_is_never_bold():
    """The network that predicts nothing has a mean distance of 100, and the one that predicts badly of 150."""
    nothing = evaluation([0.0] * 8, [math.nan] * 8, operator="conv")
    badly = evaluation([0.0] * 8, [150.0 + case for case in range(8)], operator="tvconv")
    table = table_of([nothing, badly], ["hd", "dsc"])
    assert [bold_columns(table, row) for row in range(6)] == [{"tvconv"}] * 6
    assert not table_of([nothing, evaluation([0.0] * 8, [math.nan] * 8, operator="tvconv")], ["hd", "dsc"]).bold
    half = evaluation([0.9] * 4 + [0.0] * 4, [1.0] * 4 + [math.nan] * 4, operator="conv")
    assert all(bold_columns(table_of([half, badly], ["hd"]), row) == {"conv"} for row in range(3))


def test_intervals_stay_within_what_a_metric_can_be():
    missed = evaluation([1.0] * 5 + [0.0], [0.0] * 5 + [math.nan])
    frame = score_table([missed], ["dsc", "hd"]).frame.set_index(["metric", "structure"])
    assert frame.loc[("dsc", "disc"), "high"] == 100
    assert frame.loc[("dsc", "disc"), "low"] < 50
    assert frame.loc[("hd", "disc"), "low"] == 0
    assert frame.loc[("hd", "disc"), "high"] > 50


def test_each_selection_has_its_own_words():
    runs = [graded("conv", 0, selection=selection) for selection in ("source-validation", "oracle", "last")]
    title = "selection: last, oracle (chosen on the scored cases themselves), source-validation"
    assert table_of(runs).title.endswith(title)


def test_a_label_heads_its_column_and_a_note_keeps_the_name():
    long = "lr=0.0003-47b65c81"
    runs = [graded("conv", 0), graded("tvconv", 2), graded("tvconv", 3, recipe=long)]
    table = score_table(with_labels(runs, {f"tvconv-{long}": "slow", "conv": "plain"})).layout
    assert table.columns == ("plain", "tvconv", "slow")
    assert f"slow: tvconv-{long}" in table.notes
    with pytest.raises(UsageError, match="unknown column 'x'"):
        with_labels(runs, {"x": "y"})
    with pytest.raises(UsageError, match="several columns would be called tvconv"):
        with_labels(runs, {"conv": "tvconv"})
    for old, new in (("conv", "mean-mask"), ("conv", "Mean mask"), ("conv", "READERS"), ("mean-mask", "x")):
        with pytest.raises(UsageError, match=r"is what tables call the .*: --label .* cannot give or take that name"):
            with_labels(runs, {old: new})


def test_one_operator_is_not_bold():
    table = table_of([graded("conv", 0), graded("conv", 1, seed=1)])
    assert not table.bold
    assert not any("bold" in note for note in table.notes)


def test_a_column_with_a_missing_cell_is_not_the_best_mean():
    runs = [graded("conv", 0), graded("conv", 0, holdout="B"), graded("tvconv", 5), graded("untied", -5)]
    runs.append(graded("untied", -5, holdout="B"))
    table = table_of(runs, ["dsc"])
    assert [(*row[1:3], *(text.split(" [")[0] for text in row[3:])) for row in table.rows] == [
        ("disc (OD)", "A", "54.50", "59.50", "49.50"),
        ("disc (OD)", "B", "54.50", "missing", "49.50"),
        ("cup (OC)", "A", "54.50", "59.50", "49.50"),
        ("cup (OC)", "B", "54.50", "missing", "49.50"),
        ("mean", "A, B", "54.50", "missing", "49.50"),
    ]
    assert [bold_columns(table, row) for row in range(5)] == [{"tvconv"}, {"conv"}, {"tvconv"}, {"conv"}, {"conv"}]


def noisy_runs(rng, operator):
    """Three runs of an operator as good as any other: on its 40 photographs each run is luckier or not, by 1 point."""
    photographs = np.linspace(0.7, 0.9, 40)
    return [
        evaluation(
            photographs + rng.normal(0, 0.01) + rng.normal(0, 0.005, 40), [10] * 40, operator=operator, seed=seed
        )
        for seed in range(3)
    ]


def test_runs_that_differ_by_luck_are_ties():
    """Equal operators: Wilcoxon's test, which knows of no other seed, tells most pairs apart, and bold must not."""
    rng = np.random.default_rng(0)
    told, by_wilcoxon = [], []
    for _ in range(40):
        runs = [*noisy_runs(rng, "conv"), *noisy_runs(rng, "tvconv")]
        cases = labelled(case_values(runs), captions_of(runs))
        found = best_columns(cases[cases["structure"] == "disc"], "dsc", higher_is_better=True)
        assert found.tests == {OVER_RUNS}
        told.append(len(found.columns) == 1)
        first, second = (cases[(cases["column"] == op) & (cases["structure"] == "disc")] for op in ("conv", "tvconv"))
        means = [own.groupby("case")["dsc"].mean() for own in (first, second)]
        by_wilcoxon.append(wilcoxon_p(means[0] - means[1]) < 0.05)
    assert np.mean(told) <= 0.15
    assert np.mean(by_wilcoxon) >= 0.4


def test_three_paired_runs_tell_a_real_difference():
    runs = [graded(op, gain + 0.1 * seed, seed=seed) for op, gain in (("conv", 0), ("tvconv", 2)) for seed in range(3)]
    table = table_of(runs, ["dsc"])
    assert [bold_columns(table, row) for row in range(3)] == [{"tvconv"}] * 3
    assert table.notes[-1] == f"{BOLD}; {OVER_RUNS}"
    unpaired = [graded("conv", 0, seed=seed) for seed in (0, 1, 2)] + [
        graded("tvconv", 2, seed=seed) for seed in (2, 3, 4)
    ]
    assert table_of(unpaired, ["dsc"]).notes[-1] == f"{BOLD}; {OVER_CASES}"


def test_the_frame_has_a_row_a_cell_with_units_and_missing_ones():
    runs = [evaluation([0.8], [10], operator="conv"), evaluation([0.9], [20], operator="conv", seed=1)]
    runs.append(evaluation([0.7], [10], holdout="B"))
    report = score_table(runs, ["dsc", "hd"])
    names = ["metric", "unit", "structure", "holdout", "operator", "recipe", "preset", "precision", "selection"]
    names += ["mean", "sd", "runs", "low", "high", "over", "best", "alike", "true_alike"]
    assert list(report.frame) == list(read_csv(report)) == names
    assert len(report.frame) == 2 * 2 * 2 * 2
    cells = report.frame.set_index(names[:5]).sort_index()[["mean", "sd", "runs"]]
    assert cells.loc[("dsc", "%", "disc", "A", "conv")].tolist() == [85, pytest.approx(7.07107), 2]
    assert cells.loc[("hd", "px of 800", "cup", "A", "conv")].tolist() == [15, pytest.approx(7.07107), 2]
    missing, alone = cells.loc[("dsc", "%", "cup", "B")].to_numpy()  # conv, tvconv
    assert alone[0] == 70
    assert math.isnan(alone[1])  # of one run there is no SD
    assert math.isnan(missing[0])
    assert missing[2] == 0


def test_a_run_has_the_same_identity_in_every_frame_whatever_stands_beside_it():
    """A caption leaves the recipe out where all runs share it; the frame never does."""
    varied = evaluation([0.8], [1], recipe="lr=0.0003-47b65c81", preset="tiny", precision="bf16")
    others = [evaluation([0.7], [1], operator="conv"), evaluation([0.9], [1], selection="oracle")]
    alone, beside = score_table([varied], ["dsc"]), score_table([varied, *others], ["dsc"])
    assert alone.layout.columns == ("tvconv",)
    assert "tvconv-lr=0.0003-47b65c81 (tiny) (bf16) [source-validation]" in beside.layout.columns
    identity = ["operator", "recipe", "preset", "precision", "selection"]
    expected = ["tvconv", "lr=0.0003-47b65c81", "tiny", "bf16", "source-validation"]
    own = beside.frame[beside.frame["recipe"] != ""]
    assert read_csv(alone)[identity].drop_duplicates().to_numpy().tolist() == [expected]
    assert own[identity].drop_duplicates().to_numpy().tolist() == [expected]
    values = case_values([varied])
    assert values.iloc[0][[*identity, "holdout", "seed"]].tolist() == [*expected, "A", 0]
    assert summarise(values)[identity].drop_duplicates().to_numpy().tolist() == [expected]


def test_bold_is_a_column_of_the_frame():
    frame = score_table([graded("conv", 0), graded("tvconv", 4)], ["dsc"]).frame
    assert frame.groupby("operator")["best"].unique().map(list).to_dict() == {"conv": [False], "tvconv": [True]}


def test_the_frame_gives_every_cell_its_interval():
    runs = [graded("conv", gain, seed=seed) for seed, gain in enumerate((-1, 0, 1))] + [graded("tvconv", 0)]
    cells = score_table(runs, ["dsc"]).frame.set_index("operator")
    many, one = cells.loc["conv"].iloc[0], cells.loc["tvconv"].iloc[0]
    assert (many["over"], one["over"]) == ("runs and cases", "cases")
    assert many["low"] < one["low"] < 54.5 < one["high"] < many["high"]  # the spread of runs comes on top
    expected = bootstrap_interval([[50.0 + gain + case for case in range(10)] for gain in (-1, 0, 1)])
    assert (many["low"], many["high"]) == pytest.approx((expected.low, expected.high))


def test_unknown_metric_offers_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'hd95'"):
        table_of([evaluation([0.8], [1])], ["hd96"])


def test_runs_trained_in_two_precisions_are_two_columns():
    runs = [evaluation([0.8], [1]), evaluation([0.9], [1], precision="bf16", seed=1)]
    assert table_of(runs).columns == ("tvconv (bf16)", "tvconv (fp32)")
    assert table_of(runs[1:]).columns == ("tvconv",)
