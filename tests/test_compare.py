"""What `fundus-seg compare` prints: two operators, and ours beside a published table."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_runs import Lines

from fundus_seg.config import load_config
from fundus_seg.data import open_root
from fundus_seg.errors import DataError, ProtocolError, RunError, UsageError
from fundus_seg.evaluation.metric_table import distances, overlaps
from fundus_seg.evaluation.records import Evaluation, EvaluationMeta
from fundus_seg.evaluation.score_run import evaluate
from fundus_seg.reporting.compare import comparable_columns, operators_table
from fundus_seg.reporting.published import published_names, read_published
from fundus_seg.reporting.reproduction import published_table
from fundus_seg.reporting.runs import ScoredRun, scored_runs
from fundus_seg.reporting.table import render
from fundus_seg.reporting.tables import score_table
from fundus_seg.runs.identity import identity_of
from fundus_seg.training import train

HEADER = "metric,structure,holdout,operator,mean,sd,runs\n"


def scored(dsc, hd=10.0, hd95=5.0, *, op="tvconv", holdout="A", seed=0, phantom=False, overrides=(), preset="paper"):
    """A run whose two cases both have these scores; `dsc` in [0, 1]."""
    config = load_config(preset, overrides=overrides, arguments={"holdout": holdout, "model.op": op, "seed": seed})
    identity = replace(identity_of(config, "ABCD"), precision="fp32")
    rows = [
        {
            "structure": structure,
            "case": case,
            **dict.fromkeys(overlaps(), dsc),
            **dict.fromkeys(distances(), hd95),
            "hd": hd,
        }
        for case in ("x", "y")
        for structure in ("disc", "cup")
    ]
    meta = EvaluationMeta(
        protocol=config.scoring,
        protocol_digest=config.scoring.digest(),
        data={f"{holdout}/test": "1a2b3c4d5e"},
        phantom=phantom,
        selection=config.train.selection,
        checkpoint="best",
        checkpoint_sha256="",
        run=identity,
        versions={},
    )
    path = Path(f"{preset}/{holdout}/{identity.name}/seed-{seed}.csv")
    return ScoredRun(Evaluation(path, meta, pd.DataFrame(rows).assign(truth_pixels=9)), config)


def row_of(table, *labels):
    (row,) = (row for row in table.rows if row[: len(labels)] == labels)
    return dict(zip(table.columns, row[len(table.labels) :], strict=True))


def test_table_1_ships_with_its_source():
    assert published_names() == ["tvconv2022"]
    table = read_published("tvconv2022")
    assert len(table.cells) == 2 * 2 * 4 * 3  # metrics, structures, domains, operators
    assert "CVPR 2022, Table 1" in table.notes[0]
    assert {cell.metric for cell in table.cells} == {"dsc", "hd95"}
    mean = {
        operator: np.mean(
            [cell.summary.mean for cell in table.cells if (cell.metric, cell.operator) == ("dsc", operator)]
        )
        for operator in ("conv", "depthwise", "tvconv")
    }
    assert mean == pytest.approx({"conv": 85.79, "depthwise": 86.10, "tvconv": 87.31}, abs=0.01)


def test_ours_stand_beside_table_1():
    """Drishti-GS, disc: 93.67 ± 1.24 and HD 21.96 ± 3.82 were published."""
    runs = [scored(dsc, hd=40, hd95=22, seed=seed) for seed, dsc in enumerate((0.89, 0.9, 0.91))]
    table = published_table(runs, read_published("tvconv2022")).layout
    disc = row_of(table, "DSC [%]", "disc", "A", "tvconv")
    assert (disc["runs"], disc["ours"], disc["published"]) == ("3", "90.00 ± 1.00", "93.67 ± 1.24")
    assert disc["difference [95 %]"].startswith("-3.67 [")
    assert disc["verdict"] == "not reproduced"
    assert disc["our HD"] == "-"
    distance = row_of(table, "HD95 (there HD)", "disc", "A", "tvconv")
    assert (distance["ours"], distance["our HD"]) == ("22.00 ± 0.00", "40.00 ± 0.00")
    assert (distance["TOST p"], distance["verdict"]) == ("-", "undecided, no test")
    assert any(note.startswith("no test: fewer than 3 runs of ours") for note in table.notes)
    assert row_of(table, "DSC [%]", "disc", "B", "tvconv")["ours"] == "missing"
    assert row_of(table, "DSC [%]", "mean", "A, B, C, D", "tvconv")["ours"] == "missing"
    assert {row[3] for row in table.rows} == {"tvconv"}
    assert table.notes[0] == "16 cells: 2 not reproduced, 12 missing, 2 undecided"


def test_means_over_all_cells_are_those_of_the_paper():
    table = published_table([scored(0.9, holdout=holdout) for holdout in "ABCD"], read_published("tvconv2022")).layout
    mean = row_of(table, "DSC [%]", "mean", "A, B, C, D", "tvconv")
    assert (mean["ours"], mean["published"], mean["difference [95 %]"]) == ("90.00", "87.31", "+2.69")
    assert row_of(table, "HD95 (there HD)", "mean", "A, B, C, D", "tvconv")["published"] == "24.32"


def test_every_deviation_stands_below():
    runs = [scored(0.9, overrides=["optim.lr=0.01", "scoring.threshold=0.5"]), scored(0.9, op="untied")]
    with pytest.raises(ProtocolError, match="two scoring protocols"):
        published_table(runs, read_published("tvconv2022"))
    notes = "\n".join(published_table(runs[:1], read_published("tvconv2022")).layout.notes)
    assert "data: A 2 test cases (digest 1a2b3c4d); not verified to be the published ones" in notes
    assert "as preset paper but for optim.lr 0.01 (there 0.001), scoring.threshold 0.5 (there 0.75)" in notes
    assert "train.sampling passes (there replacement)" in notes
    assert (
        "scoring: as preset released-code but for threshold 0.5 (there 0.75), dice_smoothing 0.0 (there 1.0)" in notes
    )
    assert ": source-validation; trained in fp32" in notes
    assert "(oracle)" in notes  # how the published checkpoints were chosen


def test_the_preset_itself_does_not_deviate():
    table = published_table([scored(0.9, hd=40, hd95=22, preset="released-code")], read_published("tvconv2022")).layout
    assert "recipe of tvconv: as preset released-code" in table.notes
    assert "scoring: as preset released-code" in table.notes
    distance = row_of(table, "HD95 (there HD)", "disc", "A", "tvconv")
    assert distance["our HD"] == "40.00"  # the true one, under this protocol too
    assert "selection: oracle (chosen on the scored cases themselves)" in table.title
    (protocol,) = (note for note in table.notes if note.startswith("penalised: "))
    assert "of the structure itself or of the cup" in protocol
    assert "dice_smoothing 1.0 (default 0.0)" in protocol


def test_counts_stand_under_published_numbers():
    missed = scored(0.9)
    missed.evaluation.cases.loc[0, distances()] = np.nan
    elsewhere = scored(0.9, op="untied")
    notes = published_table([missed, elsewhere], read_published("tvconv2022")).layout.notes
    assert "tvconv: disc 1 penalised, 0 excluded of 2; cup 0 penalised, 0 excluded of 2" in notes
    assert not any(note.startswith("untied: ") for note in notes)


def test_published_numbers_as_data():
    runs = [scored(dsc, hd=40, hd95=22, seed=seed) for seed, dsc in enumerate((0.89, 0.9, 0.91))]
    table = published_table(runs, read_published("tvconv2022"))
    read = pd.read_csv(io.StringIO(render(table, "csv")), comment="#")
    assert len(read) == 16
    disc = read.set_index(["metric", "structure", "holdout"]).loc[("dsc", "disc", "A")]
    assert (disc["mean"], disc["sd"], disc["runs"]) == (90, 1, 3)
    assert (disc["published_mean"], disc["published_sd"], disc["published_runs"]) == (93.67, 1.24, 10)
    assert disc["low"] < disc["difference"] < disc["high"] < -1
    assert (disc["verdict"], disc["published_metric"]) == ("not reproduced", "DSC")
    distance = read.set_index(["metric", "structure", "holdout"]).loc[("hd95", "disc", "A")]
    assert (distance["mean"], distance["hd_mean"], np.isnan(distance["p"])) == (22, 40, True)


def test_runs_without_a_published_counterpart_are_named():
    table = published_table([scored(0.9), scored(0.9, op="untied")], read_published("tvconv2022")).layout
    assert "not published: untied on A" in table.notes
    with pytest.raises(ProtocolError, match="of these there is no run, but untied on A"):
        published_table([scored(0.9, op="untied")], read_published("tvconv2022"))


def test_phantom_is_never_beside_published_numbers():
    with pytest.raises(ProtocolError, match="synthetic photographs, on which nothing was published"):
        published_table([scored(0.9), scored(0.9, phantom=True, seed=1)], read_published("tvconv2022"))


def test_any_published_table_will_do(tmp_path):
    path = tmp_path / "theirs.csv"
    path.write_text(f"# Somebody, 2030\n{HEADER}\nHD95,OD,A,tvconv,5.1,0.3,5\ndsc,cup,A,tvconv,90,,1\n")
    runs = [scored(0.9, hd95=5 + 0.1 * seed, seed=seed) for seed in range(4)]
    table = published_table(runs, read_published(str(path))).layout
    assert row_of(table, "HD95 [px of 800]", "disc", "A", "tvconv")["verdict"] == "reproduced"
    single = row_of(table, "DSC [%]", "cup", "A", "tvconv")
    assert (single["published"], single["TOST p"], single["verdict"]) == ("90.00", "-", "undecided, no test")
    assert "published: Somebody, 2030" in table.notes
    assert "recipe: that of the published table is not known here" in table.notes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the first row must name the columns metric,structure"),
        ("metric,mean\nDSC,3\n", "the first row must name the columns"),
        (HEADER, "no row below"),
        (f"{HEADER}DSC,OD,A,tvconv,93.67,1.24\n", "line 2: 6 values for 7 columns"),
        (f"# note\n{HEADER}DCS,OD,A,tvconv,93.67,1.24,10\n", "line 3: unknown metric 'DCS': did you mean 'DSC'"),
        (f"{HEADER}DSC,OX,A,tvconv,93.67,1.24,10\n", "line 2: unknown structure 'OX'"),
        (f"{HEADER}DSC,OD,,tvconv,93.67,1.24,10\n", "line 2: no holdout"),
        (f"{HEADER}DSC,OD,A,tvconv,93.67 ± 1.24,1.24,10\n", "line 2: mean '93.67 ± 1.24' is not a number"),
        (f"{HEADER}DSC,OD,A,tvconv,nan,1.24,10\n", "line 2: mean 'nan' is not a number"),
        (f"{HEADER}DSC,OD,A,tvconv,93.67,-1,10\n", "line 2: sd -1 is below 0"),
        (f"{HEADER}DSC,OD,A,tvconv,93.67,1.24,ten\n", "line 2: runs 'ten' is not a number of runs"),
        (f"{HEADER}DSC,OD,A,tvconv,1,1,1\nDSC,disc,A,tvconv,1,1,1\n", "line 3: DSC disc A tvconv stands twice"),
    ],
)
def test_a_bad_table_is_named_with_its_line(text, message, tmp_path):
    path = tmp_path / "theirs.csv"
    path.write_text(text, encoding="utf8")
    with pytest.raises(DataError, match=message) as raised:
        read_published(str(path))
    assert str(raised.value).startswith(f"{path}: ")


def test_unknown_table_offers_the_nearest(tmp_path):
    with pytest.raises(UsageError, match="did you mean 'tvconv2022'"):
        read_published("tvconv22")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="UTF-8"):
        read_published(str(tmp_path / "binary.csv"))


def test_operators_are_compared_in_a_table():
    runs = [
        scored(0.9 + 0.01 * gain, op=op, seed=seed).evaluation
        for seed in range(3)
        for op, gain in (("tvconv", 2), ("conv", 0))
    ]
    table = operators_table(runs).layout
    assert table.title == "DSC [%], unseen domains: tvconv and conv, selection: source-validation"
    disc = row_of(table, "disc", "A")
    assert (disc["tvconv"], disc["conv"], disc["difference [95 %]"]) == ("92.00", "90.00", "+2.00 [+2.00, +2.00]")
    assert row_of(table, "all", "all")["rank-biserial"] == "+1.00"
    assert row_of(operators_table(runs, ["conv", "tvconv"]).layout, "disc", "A")["difference [95 %]"].startswith(
        "-2.00"
    )
    assert "| disc | A | 92.00 | 90.00 |" in render(operators_table(runs), "markdown")


def test_a_comparison_says_its_selection_protocol_and_counts():
    runs = [own(0.9, op=op, seed=seed, preset="released-code") for op in ("conv", "tvconv") for seed in range(3)]
    runs[0].cases.loc[0, distances()] = np.nan
    runs[1].cases.loc[1, "truth_pixels"] = 0
    table = operators_table(
        [*runs, own(0.9, op="depthwise", preset="released-code")], ["tvconv", "conv"], metric="hd"
    ).layout
    assert table.title.endswith("selection: oracle (chosen on the scored cases themselves)")
    assert "conv: disc 1 penalised, 0 excluded of 6; cup 0 penalised, 1 excluded of 6" in table.notes
    assert not any(note.startswith("depthwise: ") for note in table.notes)
    assert any(runs[0].meta.protocol_digest in note for note in table.notes)


def test_operators_are_named_by_operator_by_recipe_or_by_caption():
    runs = [own(0.9, op=op) for op in ("conv", "tvconv")] + [own(0.8, overrides=["optim.lr=0.0003"])]
    recipe = next(run.meta.run.recipe for run in runs if run.meta.run.recipe)
    frame = operators_table(runs, [f"tvconv-{recipe}", "conv"]).frame
    assert frame[["first_operator", "first_recipe", "second_operator", "second_recipe"]].iloc[0].tolist() == [
        "tvconv", recipe, "conv", "",
    ]  # fmt: skip
    assert operators_table(runs, ["tvconv", "conv"]).frame["first_recipe"].iloc[0] == ""  # a caption of its own
    shared = [own(0.9, op=op, overrides=["optim.lr=0.0003"]) for op in ("conv", "tvconv")]
    for name in ("tvconv", f"tvconv-{recipe}"):
        assert operators_table(shared, [name, "conv"]).layout.columns[:2] == ("tvconv", "conv")


def test_operators_as_data():
    runs = [own(0.9 + gain, op=op, seed=seed) for seed in range(3) for op, gain in (("tvconv", 0.02), ("conv", 0))]
    read = pd.read_csv(io.StringIO(render(operators_table(runs), "csv")), comment="#")
    assert read[["structure", "holdout"]].iloc[:-1].to_numpy().tolist() == [["disc", "A"], ["cup", "A"]]
    row = read.iloc[-1]
    assert row[["structure", "holdout"]].isna().all()  # over all cells: no domain can have this name
    assert (row["first_operator"], row["second_operator"], row["over"]) == ("tvconv", "conv", "runs and cases")
    names = ["first_mean", "second_mean", "difference", "low", "high", "rank_biserial", "runs", "cases", "runs_needed"]
    assert row[names].tolist() == [92, 90, 2, 2, 2, 1, 3, 2, 2]
    assert np.isnan(row["p_runs"])  # the runs' differences are equal


def test_all_is_missing_where_a_cell_is():
    runs = [own(0.9, op=op, holdout=where) for op, where in (("conv", "A"), ("tvconv", "A"), ("tvconv", "B"))]
    table = operators_table(runs).layout
    overall = row_of(table, "all", "all")
    assert (overall["tvconv"], overall["conv"], overall["difference [95 %]"]) == ("missing",) * 3
    assert "missing as long as a cell of either operator is not compared" in table.notes[0]
    assert operators_table(runs).frame["structure"].notna().all()


def test_fewer_than_three_runs_are_marked():
    runs = [scored(0.9, op=op, seed=seed).evaluation for op in ("conv", "tvconv") for seed in range(2)]
    table = operators_table(runs).layout
    assert row_of(table, "disc", "A")["difference [95 %]"].endswith("*")
    assert any("says nothing about other seeds" in note for note in table.notes)


def test_operators_of_the_phantom_say_so():
    table = operators_table([scored(0.9, op=op, phantom=True).evaluation for op in ("conv", "tvconv")]).layout
    assert table.title.startswith("PHANTOM")


def test_of_three_operators_two_are_asked_for():
    runs = [scored(0.9, op=op).evaluation for op in ("conv", "depthwise", "tvconv")]
    with pytest.raises(UsageError, match="name them with --ops, of conv, depthwise, tvconv"):
        operators_table(runs)
    assert operators_table(runs, ["tvconv", "depthwise"]).layout.columns[:2] == ("tvconv", "depthwise")


def elsewhere(dsc, *, name="nnunet", truth_digest="t", **options):
    """As `fundus-seg score` leaves the scores of masks of another tool."""
    evaluation = scored(dsc, **options).evaluation
    unknown = {"selection": "unknown", "checkpoint": None, "data": {}, "truth_digest": truth_digest}
    run = replace(evaluation.meta.run, operator=name, recipe="", preset="unknown", precision="unknown")
    return replace(
        evaluation, path=Path(f"{name}.csv"), meta=evaluation.meta.model_copy(update={**unknown, "run": run})
    )


def own(dsc, **options):
    evaluation = scored(dsc, **options).evaluation
    return replace(evaluation, meta=evaluation.meta.model_copy(update={"truth_digest": "t"}))


def test_masks_from_elsewhere_are_an_operator():
    runs = [own(0.9, seed=seed) for seed in range(3)]
    theirs = [elsewhere(0.92, seed=seed) for seed in range(3)]
    table = operators_table([*runs, *theirs], ["nnunet", "tvconv"]).layout
    assert table.columns[:2] == ("nnunet [unknown]", "tvconv [source-validation]")
    assert row_of(table, "cup", "A")["difference [95 %]"] == "+2.00 [+2.00, +2.00]"
    notes = [note for note in table.notes if "masks from elsewhere" in note]
    assert [note.split(":")[0] for note in notes] == ["nnunet [unknown]"]
    both = operators_table([*theirs, *(elsewhere(0.9, name="monai", seed=seed) for seed in range(3))]).layout
    assert both.columns[:2] == ("nnunet", "monai")
    assert not any("elsewhere" in note for note in operators_table([*runs, own(0.9, op="conv")]).layout.notes)


def test_masks_from_elsewhere_are_compared_on_the_same_truth_by_the_same_protocol():
    with pytest.raises(ProtocolError, match=r"two sets of true masks \(A\) in one table: t in .*, u in nnunet"):
        operators_table([own(0.9), elsewhere(0.9, truth_digest="u")], ["nnunet", "tvconv"])
    with pytest.raises(ProtocolError, match="two scoring protocols"):
        operators_table([own(0.9), elsewhere(0.9, overrides=["scoring.fill_holes=false"])], ["nnunet", "tvconv"])


def test_an_operator_of_two_columns_is_named_in_full():
    runs = [own(0.9), own(0.8, op="conv"), elsewhere(0.7), elsewhere(0.6, name="conv")]
    several = r"'conv' has several columns: name one of conv \[source-validation\], conv \[unknown\]"
    with pytest.raises(UsageError, match=several):
        operators_table(runs, ["tvconv", "conv"])
    with pytest.raises(UsageError, match=r"unknown operator 'cnov' \(valid: conv"):
        operators_table(runs, ["tvconv", "cnov"])
    full = ("tvconv [source-validation]", "conv [unknown]")
    assert operators_table(runs, full).layout.columns[:2] == full


def test_what_is_not_compared_cannot_stop_a_comparison():
    """A tool that lacks cases has another set of true masks, and no say in what two other tools are compared by."""
    whole = [elsewhere(0.9, name="a"), elsewhere(0.8, name="b")]
    part = elsewhere(0.7, name="part", truth_digest="u")
    part = replace(part, meta=part.meta.model_copy(update={"unpredicted": ("z",)}))
    assert operators_table([*whole, part], ["a", "b"]).layout.columns[:2] == ("a", "b")
    told = Lines()
    kept, pair = comparable_columns([*whole, part], progress=told)
    assert (kept, pair) == (whole, None)
    assert told.lines == [
        "left out: 1 external evaluation, 1 case without a prediction, beside scores of all cases: part.csv; "
        "`fundus-seg score --missing empty` counts them as missed"
    ]
    kept, pair = comparable_columns([*whole, part], ["a", "b"], progress=told)
    assert operators_table(kept, pair).layout.columns[:2] == ("a", "b")
    assert len(told.lines) == 1  # nobody asked for the third
    with pytest.raises(ProtocolError, match="part: none of its scores can stand beside the others"):
        comparable_columns([*whole, part], ["a", "part"])
    fix = r"two sets of true masks \(A\).*part.csv lacks the predictions of 1 case: `fundus-seg score --missing empty`"
    with pytest.raises(ProtocolError, match=fix):
        operators_table([*whole, part], ["a", "part"])


def test_records_that_are_older_than_a_metric_are_named_with_the_fix():
    runs = [own(0.9, op=op, seed=seed) for op in ("conv", "tvconv") for seed in range(2)]
    older = [replace(run, cases=run.cases.drop(columns="nsd")) for run in runs]
    told = Lines()
    table = operators_table([*older[:1], *runs[1:]], metric="nsd", progress=told).layout
    assert row_of(table, "disc", "A")["runs"] == "1"
    assert told.lines[0].startswith("left out: 1 evaluation, older than the metric nsd: paper/A/conv/seed-0.csv; ")
    with pytest.raises(ProtocolError, match=r"conv/seed-0\.csv: older than the metric nsd.*`fundus-seg evaluate`"):
        operators_table(older, metric="nsd")
    scores = score_table([*older[:1], *runs[1:]], ["nsd"])
    assert any("nsd: missing in 1 evaluation older than this metric" in note for note in scores.layout.notes)
    (conv, tvconv) = scores.frame[scores.frame["structure"] == "disc"].to_dict("records")
    assert (conv["mean"], conv["runs"], tvconv["runs"]) == (90, 1, 2)
    assert conv["low"] == conv["high"] == 90


def test_two_recipes_with_one_label_are_never_merged():
    """The recipe of all runs is left out of their captions, so the label of one is the caption of the other."""
    runs = [own(dsc, op=op, overrides=["optim.lr=0.0003"]) for op, dsc in (("conv", 0.7), ("tvconv", 0.9))]
    labelled = [replace(runs[0], label="tvconv"), runs[1]]
    report = score_table(labelled, ["dsc"])
    assert len(set(report.layout.columns)) == 2
    assert report.frame[report.frame["structure"] == "disc"]["mean"].tolist() == [70, 90]
    assert operators_table(labelled).frame["difference"].tolist() == pytest.approx([20, 20, 20])
    hostile = [replace(runs[0], label=f"tvconv ({runs[1].meta.run.name})"), replace(runs[1], label="tvconv")]
    assert len(set(score_table(hostile, ["dsc"]).layout.columns)) == 2


def test_options_that_a_published_table_leaves_no_choice_of_are_refused(command):
    for option in (("--ops", "a,b"), ("--metric", "hd"), ("--difference", "2")):
        assert f"error: {option[0]} with --to" in command("compare", "--to", "tvconv2022", *option, code=2).err


def test_scores_on_disk_are_read_without_photographs(draw_root, tmp_path):
    root = draw_root(size=64)
    settings = load_config("tiny", overrides=["train.threads=1"], arguments={"holdout": "B", "model.op": "conv"})
    run = train(settings, open_root(root), tmp_path / "runs")
    with pytest.raises(RunError, match="run `fundus-seg evaluate` on it"):
        scored_runs([tmp_path / "runs"])
    evaluation = evaluate(run)
    shutil.rmtree(root)
    (found,) = scored_runs([tmp_path / "runs"])
    assert found.evaluation.meta == evaluation.meta
    assert (found.config.model.op, found.config.holdout) == ("conv", "B")
