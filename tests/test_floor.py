"""The floor of every table, the mean mask of the source domains, and predictions that hardly vary between cases."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from drawn_masks import coded, save
from small_runs import Lines, evaluation_of, identity, settings

from fundus_seg.data.cache import load_resized
from fundus_seg.data.layout import open_root
from fundus_seg.errors import UsageError
from fundus_seg.evaluation import beside, predictions
from fundus_seg.evaluation import floor as floor_module
from fundus_seg.evaluation.alike import Alike, SeenMasks
from fundus_seg.evaluation.floor import masks_on_frame, mean_mask
from fundus_seg.evaluation.metric_table import METRICS, distances, overlaps
from fundus_seg.evaluation.records import read_evaluation
from fundus_seg.evaluation.runs import evaluate_runs
from fundus_seg.evaluation.score_run import evaluate
from fundus_seg.metrics.pairwise import SIDE, mean_pairwise_iou, on_common_frame
from fundus_seg.protocol import Scoring
from fundus_seg.reporting.clinical import clinical_table
from fundus_seg.reporting.compare import comparable_columns, operators_table
from fundus_seg.reporting.floors import WHAT, floors_of
from fundus_seg.reporting.in_domain import domain_gap_table
from fundus_seg.reporting.leak import leak_table
from fundus_seg.reporting.plots import write_plots
from fundus_seg.reporting.published import read_published
from fundus_seg.reporting.reproduction import published_table
from fundus_seg.reporting.runs import scored_runs
from fundus_seg.reporting.table import render
from fundus_seg.reporting.tables import score_table
from fundus_seg.runs.folder import RunFolder
from fundus_seg.runs.record import recorded_settings
from fundus_seg.training import train


def test_domains_weigh_the_same_in_the_mean_mask_however_many_cases_they_have():
    """One case of a domain says 1; of three of another, one says 1: (1 + 1/3) / 2 = 2/3 of the first pixel."""
    one = np.array([[[[1, 0]], [[0, 0]]]], np.uint8)  # (1 case, 2 structures, 1, 2)
    three = np.array([[[[1, 1]], [[0, 0]]], [[[0, 1]], [[0, 1]]], [[[0, 1]], [[0, 0]]]], np.uint8)
    whole = [(masks, np.ones((len(masks), 2), bool)) for masks in (one, three)]
    assert mean_mask(whole) == pytest.approx(np.array([[[2 / 3, 1 / 2]], [[0, 1 / 6]]]))


def test_the_mean_mask_is_resized_bilinearly_and_cut_above_one_half():
    """Two columns, 1 and 0, on four: centres at -0.25, 0.25, 0.75 and 1.25 of them, so 1, 0.75, 0.25 and 0."""
    mean = np.array([[[1.0, 0.0]], [[0.5, 0.5]]])
    assert masks_on_frame(mean, (1, 4)).tolist() == [[[True, True, False, False]], [[False] * 4]]


@pytest.mark.parametrize("frame", [(64, 64), (90, 70), (31, 200)])
def test_the_mean_mask_lies_where_torch_would_resize_a_network_s_outputs(frame):
    mean = np.random.default_rng(0).random((2, 64, 64))
    resized = F.interpolate(torch.from_numpy(mean)[None], frame, mode="bilinear", align_corners=False)[0].numpy()
    clear = np.abs(resized - 0.5) > 1e-9
    assert np.array_equal(masks_on_frame(mean, frame)[clear], (resized > 0.5)[clear])


class TestPairwiseOverlap:
    def test_by_hand(self):
        """Of the pairs {1} {1, 2}, {1} {3} and {1, 2} {3} the overlaps are 1/2, 0 and 0."""
        masks = [np.array(mask, bool) for mask in ([1, 0, 0], [1, 1, 0], [0, 0, 1])]
        assert mean_pairwise_iou(masks) == pytest.approx(1 / 6)

    def test_two_empty_masks_are_the_same_mask(self):
        empty, full = np.zeros(4, bool), np.ones(4, bool)
        assert mean_pairwise_iou([empty, empty, empty]) == 1
        assert mean_pairwise_iou([empty, empty, full]) == pytest.approx(1 / 3)

    def test_of_one_mask_there_is_none(self):
        assert math.isnan(mean_pairwise_iou([np.ones(4, bool)]))

    @pytest.mark.parametrize("frame", [(64, 64), (128, 192), (50, 33)])
    def test_on_a_common_frame_a_mask_keeps_its_place(self, frame):
        rows, columns = np.ogrid[: frame[0], : frame[1]]
        left_half = np.broadcast_to(columns < frame[1] / 2, frame)
        small = on_common_frame(np.stack([left_half, np.broadcast_to(rows < frame[0] / 2, frame)]))
        assert small.shape == (2, SIDE, SIDE)
        assert small[0].mean() == pytest.approx(0.5, abs=1 / 32)
        assert small[0, :, 0].all() and not small[0, :, -1].any()
        assert small[1, 0].all() and not small[1, -1].any()

    def test_predictions_are_set_beside_the_truth_and_cases_without_truth_are_no_pair(self):
        left, right, empty = (np.zeros((4, 4), bool) for _ in range(3))
        left[:, :2], right[:, 2:] = True, True
        seen = SeenMasks()
        for disc in (left, right, empty):
            seen.add(np.stack([left, left]), np.stack([disc, empty]))
        assert seen.alike() == {"disc": Alike(predictions=1, truths=0)}

    @pytest.mark.parametrize(
        ("predictions", "truths", "flagged"),
        [(1.0, 0.8, True), (0.91, 0.8, True), (0.89, 0.8, False), (0.8, 0.8, False), (0.6, 0.8, False), (1, 1, False)],
    )
    def test_predictions_hardly_vary_below_half_of_what_the_truth_varies(self, predictions, truths, flagged):
        assert Alike(predictions, truths).hardly_varies == flagged


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    """The folder in which floors are kept: no test meets one of another."""
    monkeypatch.setattr(beside, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "floors"


@pytest.fixture
def data(draw_root):
    return open_root(draw_root())


@pytest.fixture
def run(data, tmp_path):
    return train(settings(), data, tmp_path / "runs")


def by_hand(data, run):
    """The masks of the floor for cases of the training size."""
    own = recorded_settings(run).data
    sources = [load_resized(data.cases(domain, "train"), own).masks for domain in own.sources]
    return np.mean([masks.mean(axis=0) for masks in sources], axis=0) > 0.5


def test_evaluate_keeps_the_scores_of_the_mean_mask_beside_its_own(data, run):
    evaluation = evaluate(run)
    floor = read_evaluation(run.floor(Scoring().digest(), "holdout"))
    assert floor.cases["case"].tolist() == evaluation.cases["case"].tolist()
    assert floor.meta.run == identity(
        operator="mean-mask", recipe="domains=A+B+C+D-size=64", preset="none", precision="none"
    )
    same = {"data", "phantom", "scored", "truth_digest", "protocol"}
    assert floor.meta.model_dump(include=same) == evaluation.meta.model_dump(include=same)
    assert (floor.meta.selection, floor.meta.checkpoint, floor.meta.external) == ("none", None, False)
    masks = by_hand(data, run)  # photographs of 64 x 64, the training size: nothing is resized
    pixels = floor.cases.groupby("structure")["prediction_pixels"].unique()
    assert {name: values.tolist() for name, values in pixels.items()} == {
        "disc": [masks[0].sum()], "cup": [masks[1].sum()],
    }  # fmt: skip
    assert floor.cases["dsc"].min() > 0.5  # drawn discs all lie in the middle
    assert {structure: each.predictions for structure, each in floor.alike.items()} == {"disc": 1, "cup": 1}
    assert all(each.hardly_varies for each in floor.alike.values())


def test_the_mean_mask_does_not_depend_on_the_protocol_s_threshold(data, run):
    strict = Scoring(threshold=0.99)
    evaluate(run)
    evaluate(run, scoring=strict)
    floors = [read_evaluation(run.floor(scoring.digest(), "holdout")) for scoring in (Scoring(), strict)]
    pixels = [floor.cases["prediction_pixels"].tolist() for floor in floors]
    assert pixels[0] == pixels[1]
    assert floors[0].meta.checkpoint_sha256 == floors[1].meta.checkpoint_sha256


def table_of(run):
    return score_table([evaluate(run)], ["dsc"])


def test_the_floor_is_the_first_column_of_every_table_in_every_form(run):
    evaluate(run)
    own = evaluate(run)
    inside = evaluate(run, scored="in-domain")
    report = table_of(run)
    assert report.layout.columns == ("mean-mask", "tvconv")
    assert WHAT in report.layout.notes
    assert clinical_table([own]).layout.columns == ("mean-mask", "tvconv")
    gaps = domain_gap_table([(own, inside)])
    assert gaps.layout.columns == ("mean-mask", "tvconv")
    assert gaps.frame["operator"].tolist() == ["mean-mask", "tvconv"]
    assert "| metric | structure | unseen | mean-mask | tvconv |" in render(report, "markdown")
    assert "unseen & mean-mask & tvconv" in render(report, "latex")
    assert "disc,A,mean-mask,domains=A+B+C+D-size=64,none,none,none," in render(report, "csv")
    rows = json.loads(render(report, "json"))["rows"]
    floor = read_evaluation(run.floor(Scoring().digest(), "holdout")).cases.groupby("structure")["dsc"].mean() * 100
    means = {row["structure"]: row["mean"] for row in rows if row["operator"] == "mean-mask"}
    assert means == pytest.approx(floor.to_dict())
    assert "1 run per cell" in report.layout.title and "selection: source-validation" in report.layout.title


def test_the_floor_takes_no_part_in_bold_in_pairs_in_plots_or_in_the_leak_meter(data, run, tmp_path):
    """Networks of two epochs are far below the mean mask, which would be the best of every row."""
    other = train(settings(op="conv"), data, tmp_path / "runs")
    both = [evaluate(each) for each in (run, other)]
    report = score_table(both, ["dsc"])
    assert not report.frame.loc[report.frame["operator"] == "mean-mask", "best"].any()
    assert report.frame["best"].any()
    assert all(column > 0 for _, column in report.layout.bold)
    assert leak_table(both) is None
    compared = operators_table(*comparable_columns(both))
    assert "mean-mask" not in compared.layout.title
    written = write_plots(both, tmp_path / "plots")
    assert written


def test_the_floor_is_compared_when_it_is_named_beside_every_seed(data, run, tmp_path):
    runs = [run, *(train(settings(seed=seed), data, tmp_path / "runs") for seed in (1, 2))]
    evaluations = [evaluate(each) for each in runs]
    report = operators_table(*comparable_columns(evaluations, ["tvconv", "mean-mask"]))
    disc = report.frame.iloc[0]
    assert (disc["runs"], disc["cases"]) == (3, 4)
    floor = read_evaluation(run.floor(Scoring().digest(), "holdout")).cases
    assert disc["second_mean"] == pytest.approx(100 * floor[floor["structure"] == "disc"]["dsc"].mean())
    assert any("no network, the same masks beside every seed" in note for note in report.layout.notes)


def test_a_floor_that_no_run_has_is_no_unknown_operator(run):
    evaluation = evaluate(run)
    shutil.rmtree(run.path / "floor")
    with pytest.raises(UsageError, match=r"mean-mask, the floor, lies beside no run; `fundus-seg evaluate` adds it"):
        operators_table(*comparable_columns([read_evaluation(evaluation.path)], ["tvconv", "mean-mask"]))


def test_runs_of_the_same_data_share_one_floor_that_is_scored_once(data, tmp_path, monkeypatch):
    scored = []
    original = floor_module._scores
    monkeypatch.setattr(floor_module, "_scores", lambda *given: (scored.append(given), original(*given))[1])
    runs = [train(settings(op=op, seed=seed), data, tmp_path) for op in ("conv", "tvconv") for seed in (0, 1)]
    evaluations = [evaluate(each) for each in runs]
    assert len(scored) == 1
    assert len({each.floor(Scoring().digest(), "holdout").read_bytes() for each in runs}) == 1
    assert len(floors_of(evaluations).evaluations) == 1
    assert score_table(evaluations, ["dsc"]).layout.columns == ("mean-mask", "conv", "tvconv")
    for holdout in "BC":
        evaluate(train(settings(holdout=holdout), data, tmp_path))
    assert len(scored) == 3
    found = evaluate_runs([tmp_path]).evaluations
    table = score_table(found, ["dsc"]).layout
    assert table.columns == ("mean-mask", "conv", "tvconv")  # of three unseen domains
    assert not any("missing" in row[3] for row in table.rows)
    assert len(scored) == 3


def test_floors_of_a_table_are_read_once_each(data, tmp_path, monkeypatch):
    from fundus_seg.reporting import floors

    evaluations = [evaluate(train(settings(seed=seed), data, tmp_path)) for seed in range(3)]
    read = []
    monkeypatch.setattr(floors, "read_evaluation", lambda path: (read.append(path), read_evaluation(path))[1])
    score_table(evaluations, ["dsc"])
    assert len(read) == 1


def test_floors_of_other_sources_or_another_size_are_told_apart(data, run, tmp_path):
    part = train(settings("data.sources=[B, C]", op="conv"), data, tmp_path / "runs")
    small = train(settings("data.size=32", op="depthwise"), data, tmp_path / "runs")
    table = score_table([evaluate(each) for each in (run, part, small)], ["dsc"]).layout
    assert table.columns[:3] == (
        "mean-mask-domains=A+B+C+D-size=32", "mean-mask-domains=A+B+C+D-size=64", "mean-mask-domains=A+B+C-size=64",
    )  # fmt: skip
    assert len(table.columns) == 6


def test_runs_that_an_earlier_version_scored_are_counted_and_evaluate_adds_their_floor(
    data, run, tmp_path, monkeypatch
):
    other = train(settings(seed=1), data, tmp_path / "runs")
    evaluations = [evaluate(each) for each in (run, other)]
    shutil.rmtree(run.path / "floor")
    for pairs in (run.path / "evaluations").glob("*.pairs"):
        pairs.unlink()
    old = [read_evaluation(each.path) for each in evaluations]
    report = score_table(old, ["dsc"])
    assert report.layout.columns == ("mean-mask", "tvconv")
    lacking = f"mean-mask, the floor, is missing beside 1 of 2 evaluations, {old[0].path} first; `fundus-seg evaluate`"
    assert any(note.startswith(lacking) for note in report.layout.notes)
    assert any("is not known of 1 evaluation," in note for note in report.layout.notes)
    shutil.rmtree(other.path / "floor")
    assert score_table(old, ["dsc"]).layout.columns == ("tvconv",)

    monkeypatch.setattr(predictions, "load_model", None)  # no network is needed
    before = old[0].path.read_bytes()
    evaluate(run)
    evaluate(other)
    assert old[0].path.read_bytes() == before
    assert not any("missing beside" in note for note in score_table(old, ["dsc"]).layout.notes)


def test_a_damaged_floor_is_missing_and_made_again(run, kept):
    evaluation = evaluate(run)
    path = run.floor(Scoring().digest(), "holdout")
    written = path.read_bytes()
    for damage in (b"", written[:-5], b"\xff"):
        path.write_bytes(damage)
        assert score_table([evaluation], ["dsc"]).layout.columns == ("tvconv",)
        evaluate(run)
        assert path.read_bytes() == written
    path.with_suffix(".json").write_text("[")
    assert score_table([evaluation], ["dsc"]).layout.columns == ("tvconv",)
    evaluate(run)
    (copy,) = kept.glob("*/mean-mask.csv")
    copy.write_text("damaged")
    shutil.rmtree(run.path / "floor")
    evaluate(run)
    assert path.read_bytes() == copy.read_bytes() == written


def test_a_floor_that_lacks_a_metric_of_newer_scores_is_made_again(run, monkeypatch):
    evaluate(run)
    new = replace(METRICS["dsc"], label="New")
    monkeypatch.setitem(METRICS, "new", new)
    evaluate(run)
    floor = run.floor(Scoring().digest(), "holdout")
    assert "new" not in read_evaluation(floor).cases  # nor do the scores hold it
    shutil.rmtree(run.path / "evaluations")
    evaluate(run)
    cases = read_evaluation(floor).cases
    assert cases["new"].equals(cases["dsc"].rename("new"))


def test_a_copy_of_a_run_carries_its_floor(run, kept, tmp_path):
    evaluation = evaluate(run)
    copy = RunFolder(shutil.copytree(run.path, tmp_path / "elsewhere" / "seed-0"))
    shutil.rmtree(kept)
    (found,) = scored_runs([copy.path])
    assert score_table([found.evaluation], ["dsc"]).layout.columns == ("mean-mask", "tvconv")
    moved = copy.floor(evaluation.meta.protocol_digest, "holdout")
    assert floors_of([found.evaluation]).of[found.evaluation.path].path == moved


def test_without_the_training_photographs_there_is_no_floor_and_a_line_says_so(data, run, tmp_path):
    for mask in data.path.glob("Domain2/train/ROIs/mask/*.png"):
        mask.unlink()
    told = Lines()
    evaluation = evaluate(run, progress=told)
    assert len(evaluation.cases) == 8
    assert run.has("DONE")
    (line,) = told.lines
    assert line.startswith("left out: 1 floor, not made (") and line.endswith(str(run.path))
    assert score_table([evaluation], ["dsc"]).layout.columns == ("tvconv",)


def test_a_folder_that_cannot_be_written_keeps_its_scores(run, monkeypatch):
    first = evaluate(run)
    shutil.rmtree(run.path / "floor")
    lease = run.path / ".lease"
    lease.unlink()
    lease.mkdir()
    told = Lines()
    pd.testing.assert_frame_equal(evaluate(run, progress=told).cases, first.cases)
    (line,) = told.lines
    assert line.startswith("left out: 1 floor, not kept (")


def test_the_floor_stands_beside_published_numbers(run):
    evaluate(run)
    report = published_table(scored_runs([run.path]), read_published("tvconv2022"))
    floor = read_evaluation(run.floor(Scoring().digest(), "holdout")).cases
    disc = report.frame[(report.frame["metric"] == "dsc") & (report.frame["structure"] == "disc")].set_index("holdout")
    assert disc.loc["A", "floor"] == pytest.approx(100 * floor[floor["structure"] == "disc"]["dsc"].mean())
    assert math.isnan(disc.loc["B", "floor"])
    row = next(row for row in report.layout.rows if row[1:3] == ("disc", "A"))
    labels = [*report.layout.labels, *report.layout.columns]
    assert row[labels.index("mean-mask")] == f"{disc.loc['A', 'floor']:.2f}"


def drawn(alike, *, operator="tvconv", holdout="A", seed=0):
    """An evaluation of two cases whose masks are so alike, for disc and cup."""
    rows = [
        {"structure": structure, "case": case, "truth_pixels": 9, **dict.fromkeys(overlaps(), 0.5),
         **dict.fromkeys(distances(), 1.0)}
        for case in "xy"
        for structure in ("disc", "cup")
    ]  # fmt: skip
    evaluation = evaluation_of(rows, identity(operator=operator, holdout=holdout, seed=seed))
    return replace(evaluation, alike=alike and {structure: Alike(*alike) for structure in ("disc", "cup")})


def test_columns_whose_predictions_hardly_vary_are_named_and_counted():
    runs = [drawn((0.99, 0.8), operator="conv"), drawn((0.8, 0.8), operator="conv", holdout="B"), drawn((0.82, 0.8))]
    report = score_table(runs, ["dsc", "hd"])
    (note,) = (note for note in report.layout.notes if "hardly vary" in note)
    assert note == (
        "conv: predictions hardly vary between cases in 2 of 4 cells, less than half as much as true masks; mean "
        "pairwise IoU 0.99 beside their 0.80 (disc, unseen A)"
    )
    cell = report.frame[(report.frame["operator"] == "conv") & (report.frame["holdout"] == "A")].iloc[0]
    assert (cell["alike"], cell["true_alike"]) == (0.99, 0.8)


def test_a_cell_is_judged_by_the_mean_over_its_runs():
    runs = [drawn((0.99, 0.8)), drawn((0.75, 0.8), seed=1)]
    assert not any("hardly vary" in note for note in score_table(runs, ["dsc"]).layout.notes)
    assert score_table(runs, ["dsc"]).frame["alike"].iloc[0] == pytest.approx(0.87)


def test_the_name_of_the_floor_is_no_tool_s(command, truth, tmp_path):
    arguments = ("score", "--pred", truth, "--truth", truth, "--out", tmp_path / "runs", "--name")
    assert "give another --name" in command(*arguments, "mean-mask", code=2).err
    printed = command(*arguments, "theirs", "--format", "markdown").out
    assert "theirs" in printed and "mean-mask" not in printed


def test_masks_of_another_tool_that_hardly_vary_are_named(command, tmp_path):
    """One disc is predicted for three eyes whose discs lie apart."""
    for number, left in enumerate((4, 20, 36)):
        for folder, place in (("pred", 20), ("truth", left)):
            cup, disc = np.zeros((64, 64), bool), np.zeros((64, 64), bool)
            disc[16:48, place : place + 24], cup[24:40, place + 8 : place + 16] = True, True
            save(tmp_path / folder / f"eye{number}.png", coded(np.stack([disc, cup]), 255, 128, 0))
    printed = command("score", "--pred", tmp_path / "pred", "--truth", tmp_path / "truth", "--format", "markdown").out
    assert "external: predictions hardly vary between cases in 2 of 2 cells" in printed


def test_the_commands_show_the_floor(command, run):
    for form in ("markdown", "latex", "csv", "json", "rich"):
        printed = command("evaluate", run.path, "--format", form, "--in-domain", "--clinical").out
        assert "mean-mask" in printed and "mean-mask: predictions hardly vary" not in printed
    assert "mean-mask" in command("compare", run.path, "--to", "tvconv2022", "--format", "markdown").out
    assert "mean-mask" in command("compare", run.path, "--ops", "tvconv,mean-mask", "--format", "markdown").out
    with pytest.raises(UsageError, match="name them with --ops, of tvconv"):
        operators_table([evaluate(run)])
