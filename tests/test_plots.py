from __future__ import annotations

import dataclasses
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fundus_seg.config import load_config
from fundus_seg.data import open_root
from fundus_seg.errors import RunError
from fundus_seg.evaluation.score_run import evaluate
from fundus_seg.reporting.plots import write_plots
from fundus_seg.training import train
from fundus_seg.viz.agreement import draw_bland_altman, limits_of_agreement
from fundus_seg.viz.plots import draw_boxes, draw_learning_curves
from fundus_seg.viz.style import save

OPERATORS = ("conv", "depthwise", "tvconv", "depthwise-dilated", "untied")


@pytest.fixture
def cases():
    rng = np.random.default_rng(0)
    rows = [
        {"column": operator, "holdout": holdout, "structure": structure, "value": value, "penalised": value < 65}
        for operator in OPERATORS
        for holdout in "BA"
        for structure in ("disc", "cup")
        for value in (*rng.uniform(60, 100, 12), np.nan)
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def pairs():
    rng = np.random.default_rng(0)
    true = rng.uniform(0.3, 0.8, 40)
    frame = pd.DataFrame({"column": ["conv", "tvconv"] * 20, "holdout": ["A", "A", "B", "B"] * 10, "true": true})
    return frame.assign(case=[f"eye{number}" for number in range(40)], predicted=true + rng.normal(0, 0.05, 40))


@pytest.fixture
def epochs():
    rows = [
        {"column": column, "holdout": "A", "seed": seed, "epoch": epoch, "loss": seed + 1 / epoch}
        for column in ("conv", "tvconv")
        for seed in (0, 2, 4)
        for epoch in range(1, 6)
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def evaluation(draw_root, tmp_path):
    settings = load_config("tiny", overrides=["train.threads=1"], arguments={"holdout": "B"})
    return evaluate(train(settings, open_root(draw_root()), tmp_path / "runs"))


def texts(figure):
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]


def cut_off(figure):
    """Texts whose boxes, in fractions of the figure, reach beyond it."""
    figure.draw_without_rendering()
    ticks = {id(tick) for axes in figure.axes for tick in axes.get_xticklabels() + axes.get_yticklabels()}
    for text in figure.findobj(matplotlib.text.Text):
        if text.get_text() and id(text) not in ticks:
            box = text.get_window_extent().transformed(figure.transFigure.inverted())
            if min(box.x0, box.y0) < 0 or max(box.x1, box.y1) > 1:
                yield text.get_text()


def test_boxes_are_those_of_the_cases(cases):
    figure = draw_boxes(cases, label="DSC [%]", title="PHANTOM", bounds=(0, 100))
    disc, cup = figure.axes
    assert (disc.get_ylabel(), cup.get_ylabel()) == ("disc: DSC [%]", "cup: DSC [%]")
    assert [tick.get_text() for tick in cup.get_xticklabels()] == ["A", "B"]
    assert len(disc.patches) == len(OPERATORS) * 2
    medians = [line.get_ydata()[0] for line in disc.lines if line.get_linewidth() == 1.5]
    first = cases.query("column == 'conv' and holdout == 'A' and structure == 'disc'")["value"]
    assert medians[0] == pytest.approx(first.median())
    dots = np.concatenate([dots.get_offsets() for dots in disc.collections])
    assert sorted(dots[:, 1]) == sorted(cases.query("structure == 'disc'")["value"].dropna())
    assert np.all(np.abs(dots[:, 0] - np.rint(dots[:, 0])) < 0.5)
    assert disc.get_ylim()[1] <= 101
    hollow = np.concatenate([dots.get_offsets() for dots in disc.collections if dots.get_facecolor().min() == 1])
    missed = cases.query("structure == 'disc' and penalised")
    assert sorted(hollow[:, 1]) == sorted(missed["value"])
    counts = [text.get_text() for text in disc.texts]
    of_conv = [(missed["column"] == "conv") & (missed["holdout"] == holdout) for holdout in "AB"]
    assert counts[:2] == [f"12 ({here.sum()})" if here.any() else "12" for here in of_conv]
    assert "PHANTOM" in texts(figure)


def test_five_operators_are_named_and_look_different(cases):
    figure = draw_boxes(cases, label="DSC [%]", title="")
    keys = figure.legends[0].get_patches()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(OPERATORS)
    assert len({key.get_facecolor() for key in keys}) == len(OPERATORS)


def test_a_cell_without_cases_is_left_empty(cases):
    some = cases[(cases["column"] != "conv") | (cases["holdout"] != "B")]
    figure = draw_boxes(some, label="DSC [%]", title="")
    figure.draw_without_rendering()
    assert sum(len(dots.get_offsets()) for dots in figure.axes[0].collections) == 12 * 9


def test_limits_of_agreement_by_hand():
    """Differences 1, 2, 3: mean 2, SD 1."""
    assert limits_of_agreement(pd.Series([1, 2, 3]), pd.Series([0, 1, 2])) == pytest.approx((2, 0.04, 3.96))
    assert np.isnan(limits_of_agreement(pd.Series([1, 2]), pd.Series([0, 0]))[1:]).all()


def test_limits_of_agreement_over_runs_by_hand():
    """Two eyes of two runs: means 1 and 5, so 2 · (4 + 4) / 1 = 16 between, (1 + 1 + 1 + 1) / 2 = 2 within."""
    spread = 1.96 * np.sqrt((16 - 2) / 2 + 2)
    limits = limits_of_agreement(pd.Series([0, 2, 4, 6]), pd.Series([0, 0, 1, 1]))
    assert limits == pytest.approx((3, 3 - spread, 3 + spread))


def test_the_same_run_twice_tells_nothing_more_of_the_limits():
    differences, eyes = pd.Series([1.0, 2, 4, 8]), pd.Series([0, 1, 2, 3])
    twice = [pd.concat([each, each], ignore_index=True) for each in (differences, eyes)]
    assert limits_of_agreement(*twice) == pytest.approx(limits_of_agreement(differences, eyes))


def test_bland_altman_shows_bias_limits_and_every_pair(pairs):
    pairs.loc[[0, 2], "predicted"] = np.nan  # no disc found: no ratio
    pairs.loc[[2, 4], "true"] = np.nan
    figure = draw_bland_altman(pairs, title="Vertical cup-to-disc ratio")
    left = figure.axes[0]
    conv = pairs[pairs["column"] == "conv"].dropna()
    assert left.get_title().startswith("conv\n17 pairs of 17 eyes (left out: 1 undefined, 2 without truth)\n")
    assert [line.get_ydata()[0] for line in left.lines] == pytest.approx(
        limits_of_agreement(conv["predicted"] - conv["true"], conv["case"])
    )
    dots = np.concatenate([dots.get_offsets() for dots in left.collections])
    assert sorted(dots[:, 1]) == pytest.approx(sorted(conv["predicted"] - conv["true"]))
    assert "Vertical cup-to-disc ratio" in texts(figure)


def test_runs_of_one_eye_are_said_to_be_of_one_eye(pairs):
    figure = draw_bland_altman(pd.concat([pairs, pairs]), title="vCDR")
    assert figure.axes[0].get_title().startswith("conv\n40 pairs of 20 eyes\n")
    assert any("runs of one eye" in text for text in texts(figure))


def test_learning_curves_are_mean_and_range_over_runs(epochs):
    axes = draw_learning_curves(epochs, curves={"loss": "training loss"}, title="").axes[0]
    assert axes.lines[0].get_ydata() == pytest.approx([2 + 1 / epoch for epoch in range(1, 6)])  # seeds 0, 2, 4
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(0 + 1 / 5)
    assert band[:, 1].max() == pytest.approx(4 + 1 / 1)
    assert axes.get_ylabel() == "training loss"


@pytest.mark.parametrize("count", [1, 2, 5])
def test_nothing_is_cut_off(cases, pairs, epochs, count):
    phantom = "PHANTOM, synthetic photographs. Unseen domains, selection: source-validation"
    some = cases[cases["column"].isin(OPERATORS[:count])]
    repeated = pd.concat([pairs.assign(column=operator) for operator in OPERATORS[:count]])
    figures = (
        draw_boxes(some, label="HD [px of 800]", title=phantom),
        draw_bland_altman(repeated, title=phantom),
        draw_learning_curves(epochs, curves={"loss": "training loss"}, title=phantom),
    )
    assert [text for figure in figures for text in cut_off(figure)] == []


def test_files_are_the_same_each_time_and_keep_text_as_text(cases, tmp_path):
    stems = [tmp_path / "first", tmp_path / "second"]
    with matplotlib.rc_context({"lines.linewidth": 9, "svg.fonttype": "path"}):  # a user's own matplotlibrc
        written = [save(draw_boxes(cases, label="DSC [%]", title="PHANTOM"), stem) for stem in stems[:1]]
    written += [save(draw_boxes(cases, label="DSC [%]", title="PHANTOM"), stem) for stem in stems[1:]]
    (png, svg), (other_png, other_svg) = written
    assert (png.name, svg.name) == ("first.png", "first.svg")
    assert svg.read_bytes() == other_svg.read_bytes()
    assert png.read_bytes() == other_png.read_bytes()
    said = [element.text for element in ElementTree.parse(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert {"PHANTOM", "tvconv", "disc: DSC [%]"} <= set(said)
    assert Image.open(png).width >= 900
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.png", "first.svg", "second.png", "second.svg"]


def test_every_plot_of_a_run_is_written(evaluation, tmp_path):
    written = write_plots([evaluation], tmp_path / "plots", ["dsc", "hd95"])
    names = ["boxes-dsc", "boxes-hd95", "bland-altman-vcdr", "learning-curves"]
    assert [path.name for path in written] == [f"{name}.{form}" for name in names for form in ("png", "svg")]
    assert all(path.stat().st_size > 1000 for path in written)
    assert "PHANTOM" not in written[1].read_text()


def test_plots_of_the_phantom_say_so_in_name_and_title(evaluation, tmp_path):
    phantom = dataclasses.replace(evaluation, meta=evaluation.meta.model_copy(update={"phantom": True}))
    written = write_plots([phantom], tmp_path / "plots", ["dsc"])
    assert all(path.name.startswith("phantom-") for path in written)
    assert all("PHANTOM" in path.read_text() for path in written if path.suffix == ".svg")


def test_a_damaged_metrics_file_is_named(evaluation, tmp_path):
    evaluation.path.parents[1].joinpath("metrics.csv").write_text("epoch\n")
    with pytest.raises(RunError, match=r"metrics\.csv: cannot be read"):
        write_plots([evaluation], tmp_path / "plots")


def test_scores_of_masks_without_a_run_have_no_learning_curves(evaluation, tmp_path):
    evaluation.path.parents[1].joinpath("metrics.csv").unlink()
    written = write_plots([evaluation], tmp_path / "plots", ["dsc"])
    assert {path.stem for path in written} == {"boxes-dsc", "bland-altman-vcdr"}


def test_masks_from_elsewhere_stand_in_every_plot_but_the_learning_curves(evaluation, tmp_path):
    meta = evaluation.meta
    run = dataclasses.replace(meta.run, operator="nnunet", preset="unknown", precision="unknown")
    unknown = {"selection": "unknown", "checkpoint": None, "data": {}, "run": run}
    path = tmp_path / "runs/external/B/nnunet/seed-0/evaluations/0-external.csv"
    theirs = dataclasses.replace(evaluation, path=path, meta=meta.model_copy(update=unknown))
    written = {path.stem: path for path in write_plots([evaluation, theirs], tmp_path / "plots", ["dsc"])}  # SVG last
    named = {stem: "nnunet" in path.read_text("utf8") for stem, path in written.items()}
    assert named == {"boxes-dsc": True, "bland-altman-vcdr": True, "learning-curves": False}


def test_hollow_dots_of_means_over_runs_are_named_so(cases):
    one, several = (draw_boxes(cases, label="DSC [%]", title="", runs=runs) for runs in (1, 3))
    assert one.axes[-1].get_xlabel().endswith("(a dot is a case; hollow and in brackets: empty prediction)")
    assert (
        "a case's mean over runs; hollow and in brackets: empty prediction in 1 to 3 of"
        in several.axes[-1].get_xlabel()
    )


def test_letters_that_no_font_has_are_said_once(cases, tmp_path):
    figure = draw_boxes(cases.replace("conv", "\U00100001\U00100002"), label="DSC [%]", title="")
    with pytest.warns(UserWarning) as told:
        save(figure, tmp_path / "boxes")
    assert [str(each.message) for each in told] == [
        "no installed font has \U00100001\U00100002: boxes in PNG plots; install one, as Noto Sans CJK"
    ]


def test_letters_of_another_installed_font_are_drawn_with_it(cases, tmp_path, recwarn):
    figure = draw_boxes(cases.replace("conv", "\u2a3f x"), label="DSC [%]", title="")
    save(figure, tmp_path / "boxes")  # the character is in DejaVu or STIX, both of which come with matplotlib
    assert not [each for each in recwarn if "font" in str(each.message)]
