"""The page of some runs: its numbers are those of the reports, it loads nothing, and it says what it leaves out."""

from __future__ import annotations

import base64
import re
import shlex
import shutil
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure as MplFigure
from small_runs import Lines, settings
from written_runs import DOMAINS, write_run

from fundus_seg.config import load_config
from fundus_seg.data.dataset import Sample
from fundus_seg.data.layout import open_root
from fundus_seg.data.mask_files import pair_masks
from fundus_seg.errors import ProtocolError, RunError, UsageError
from fundus_seg.evaluation.ensembles import ensembles_of
from fundus_seg.evaluation.external import score_masks
from fundus_seg.evaluation.records import write_evaluation
from fundus_seg.evaluation.trusted import TrustedRun, TrustSummary
from fundus_seg.progress import left_out
from fundus_seg.protocol import combined
from fundus_seg.reporting import evaluation_reports
from fundus_seg.reporting.page import render
from fundus_seg.reporting.page.asked import Asked
from fundus_seg.reporting.page.blocks import Cell, Grid, LackingError, Part, Shown, Text, grid
from fundus_seg.reporting.page.cases import ranked_cases
from fundus_seg.reporting.page.figures import inline_svg
from fundus_seg.reporting.page.pictures import _paths, pictures_of
from fundus_seg.reporting.page.render import rendered, report_page
from fundus_seg.reporting.page.repeat import commands
from fundus_seg.reporting.page.results import find_results
from fundus_seg.reporting.page.sections import SECTIONS
from fundus_seg.reporting.page.sections import section as made
from fundus_seg.reporting.page.words import methods
from fundus_seg.reporting.runs import scored_runs
from fundus_seg.runs.folder import trained_runs
from fundus_seg.training import train
from fundus_seg.viz.style import plot_style

QUICK, TWO = Asked(metrics=("dsc",)), Asked(metrics=("dsc", "hd95"))
HOSTILE = '<script>alert("1")</script>\'"><img src=x onerror=alert(2)>\u202e$\\frac$'


class Parsed(HTMLParser):
    """The tags of a page with their attributes, the texts of each section, and the tables' cells by their title."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.sections: dict[str, str] = {}
        self.tables: dict[str, list[list[str]]] = {}
        self.keys: dict[str, list[list[str | None]]] = {}
        self._section = self._table = ""
        self._cell = False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        own = dict(attrs)
        self.tags.append((tag, own))
        if tag == "section":
            self._section = own.get("id") or "left-out"
            self.sections[self._section] = ""
        elif tag == "table":
            self._table = own["aria-label"]
            self.tables[self._table], self.keys[self._table] = [], []
        elif tag == "tr":
            self.tables[self._table].append([])
            self.keys[self._table].append([])
        elif tag in ("td", "th"):
            self._cell = True
            self.tables[self._table][-1].append("")
            self.keys[self._table][-1].append(own.get("data-key"))

    def handle_endtag(self, tag):
        self._section = "" if tag == "section" else self._section
        self._table = "" if tag == "table" else self._table
        self._cell = self._cell and tag not in ("td", "th")

    def handle_data(self, data):
        if self._section:
            self.sections[self._section] += data
        if self._cell:
            self.tables[self._table][-1][-1] += data


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two operators on two unseen domains, two seeds each, with everything that an evaluation can leave."""
    out = tmp_path_factory.mktemp("runs")
    for op in ("conv", "tvconv"):
        for holdout in "AB":
            for seed in (0, 1):
                write_run(out, op=op, holdout=holdout, seed=seed, checkpoints=("best", "oracle"), in_domain=True)
    return out


@pytest.fixture(scope="module")
def found(runs):
    (results,) = find_results([runs])
    return results


@pytest.fixture(scope="module")
def text(found):
    """The page of all of them."""
    return report_page([found], TWO)


def section(found, name, **asked):
    """One section of the page, its blocks made."""
    return made(name, *SECTIONS[name], found, Asked(**asked))


def test_the_table_is_the_one_that_evaluate_prints(found, text):
    page = Parsed(text)
    first = next(iter(evaluation_reports(found.evaluations, TWO.metrics)))
    table = page.tables[first.layout.title]
    assert table == [[*first.layout.labels, *first.layout.columns], *map(list, first.layout.rows)]
    frame = first.frame
    every = page.keys["Every cell of the table above, with its interval"]
    assert [float(row[4]) for row in every[1:]] == frame["mean"].tolist()
    texts = [row[4] for row in page.tables["Every cell of the table above, with its interval"][1:]]
    assert texts[0] == "{mean:.2f} [{low:.2f}, {high:.2f}]".format(**frame.iloc[0])


def test_every_section_has_something_where_everything_is_there(text):
    page = Parsed(text)
    assert [name for name, own in page.sections.items() if "Left out: " in own] == ["seen", "affinity", "trust"]


def test_what_a_single_run_lacks_is_left_out_with_the_reason(tmp_path):
    write_run(tmp_path)
    page = Parsed(report_page(find_results([tmp_path]), QUICK))
    lacking = {name: text for name, text in page.sections.items() if "Left out: " in text}
    assert list(lacking) == ["compared", "leak", "in-domain", "seen", "affinity", "trust"]
    assert "there is one operator alone, tvconv" in lacking["compared"]
    assert "fundus-seg evaluate --in-domain makes them" in lacking["in-domain"]
    linked = [own["href"] for tag, own in page.tags if tag == "a"]
    assert not set(linked) & {f"#{name}" for name in lacking}


def test_a_section_keeps_what_it_has_before_it_lacks_something(found):
    def make(results, what):
        yield Text("first")
        raise LackingError("the rest is not there")

    part = Part(False, (made("name", "Title", make, found, QUICK),))
    page = Parsed(rendered("report.html", title="", parts=[part], left_out=[]))
    assert page.sections["name"].split() == ["Title", "first", "Left", "out:", "the", "rest", "is", "not", "there."]
    assert "#name" in [own["href"] for tag, own in page.tags if tag == "a"]


def test_many_columns_are_compared_with_the_first(tmp_path, monkeypatch):
    for op in ("conv", "depthwise", "tvconv"):
        write_run(tmp_path, op=op)
    monkeypatch.setattr("fundus_seg.reporting.page.score_sections.MOST_IN_PAIRS", 2)
    (found,) = find_results([tmp_path])
    (table,) = section(found, "compared").blocks
    assert {(row[2].text, row[3].text) for row in table.rows} == {("tvconv", "conv"), ("depthwise", "conv")}
    assert "of 3 columns each is compared with conv alone" in table.notes[0]


def test_nothing_is_loaded_and_one_script_runs(text):
    page = Parsed(text)
    addresses = [value for _, own in page.tags for key, value in own.items() if key in ("src", "href", "srcset")]
    assert {address[0] for address in addresses} == {"#"}
    assert set(re.findall(r"url\((.)", text)) == {"#"}
    assert [own for tag, own in page.tags if tag == "script"] == [{}]
    assert not any(key.startswith("on") for _, own in page.tags for key in own)
    policy = next(own["content"] for tag, own in page.tags if own.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    identifiers = [own["id"] for _, own in page.tags if "id" in own]
    assert len(identifiers) == len(set(identifiers))
    referred = {own["href"][1:] for tag, own in page.tags if tag == "use"} | set(re.findall(r"url\(#([^)]*)\)", text))
    assert referred <= set(identifiers)


def test_hostile_names_are_texts(tmp_path):
    write_run(tmp_path / "runs", cases=(HOSTILE, "=1+1", "two"))
    (found,) = find_results([tmp_path / "runs"], labels={"tvconv": HOSTILE})
    page = Parsed(report_page([found], QUICK, left_out=[left_out("run", "failed", [HOSTILE])]))
    assert [tag for tag, _ in page.tags if tag in ("script", "img")] == ["script"]
    shown = HOSTILE.replace("\u202e", "\\u202e")
    assert shown in page.sections["cases"]
    assert shown in page.sections["left-out"]
    assert shown in " ".join(page.sections["boxes"].split())  # a legend is broken into lines


def test_the_phantom_is_marked_in_every_section_and_patients_nowhere(tmp_path):
    write_run(tmp_path)
    write_run(tmp_path, phantom=True)
    patients, phantom = find_results([tmp_path])
    assert (patients.phantom, phantom.phantom) == (False, True)
    page = Parsed(report_page([patients, phantom], QUICK))
    assert set(page.sections) == {*SECTIONS, *(f"phantom-{name}" for name in SECTIONS)}
    assert {name for name, text in page.sections.items() if "PHANTOM" in text} == {
        f"phantom-{name}" for name in SECTIONS
    }
    assert "synthetic (a phantom)" in page.sections["phantom-methods"]


def test_the_commands_name_the_same_recipe(found, tmp_path):
    line, evaluate, report = commands(found)
    assert evaluate == "fundus-seg evaluate runs --all-selections --in-domain"
    assert report == "fundus-seg report runs --out report.html"
    words = shlex.split(line)
    assert words[:8] == ["fundus-seg", "benchmark", "--holdouts", "A,B", "--ops", "conv,tvconv", "--runs", "2"]
    assert (words[words.index("--data") + 1], words[-1]) == ("ROOT", "--probe-holdout")
    overrides = [word for before, word in pairwise(words) if before == "--set"]
    config = load_config(words[words.index("--config") + 1], overrides=overrides, arguments={"holdout": "A"})
    recorded = found.runs[0].config
    assert config.recipe(all_domains=DOMAINS) == found.runs[0].evaluation.meta.run.recipe
    assert (config.train.threads, config.train.precision) == (recorded.train.threads, recorded.train.precision)


def test_runs_that_are_no_grid_have_a_command_each(tmp_path):
    write_run(tmp_path, "optim.drop_epochs=[1,2]", holdout="A", seed=3)
    write_run(tmp_path, "optim.drop_epochs=[1,2]", holdout="B", seed=5, phantom=False)
    (found,) = find_results([tmp_path])
    first, second, *_ = commands(found)
    assert first.startswith("fundus-seg train --holdout A --op tvconv --seed 3 --config tiny --data ROOT")
    assert second.startswith("fundus-seg train --holdout B --op tvconv --seed 5 --config tiny --data ROOT")
    assert "'optim.drop_epochs=[1, 2]'" in first


def test_the_methods_say_all_that_the_recipe_changes(tmp_path):
    changed = ("train.epochs=7", "optim.lr=0.002", "train.average=ema", "optim.schedule=cosine", "train.augment=flip")
    write_run(tmp_path, *changed)
    (found,) = find_results([tmp_path])
    text = methods(found)
    for said in (
        "7 epochs",
        "learning rate 0.002, falling to 0 along a cosine",
        "train.average ema",
        "augmentation: flip",
    ):
        assert said in text
    assert f"scoring protocol {found.runs[0].evaluation.meta.protocol_digest}" in text
    assert "A (Drishti-GS, 4 photographs)" in text


def test_cases_are_ranked_by_their_mean_over_runs_and_operators(found):
    frame = ranked_cases(found)
    assert set(zip(frame["holdout"], frame["rank"], strict=True)) == {
        (holdout, rank) for holdout in "AB" for rank in ("worst", "median", "best")
    }
    cases = pd.concat([each.cases.assign(op=each.meta.run.operator) for each in found.evaluations])
    means = 100 * cases[cases["domain"] == "A"].groupby("case")["dsc"].mean()
    own = frame[frame["holdout"] == "A"].drop_duplicates("case").set_index("rank")["overall"]
    assert [own["worst"], own["best"]] == pytest.approx([means.min(), means.max()])
    assert (frame["runs"] == 2).all()


def test_photographs_are_in_the_page_only_where_they_were_given(found, text):
    asked = []

    def predict(evaluation, names):
        asked.append((evaluation.meta.run.operator, evaluation.meta.run.holdout, evaluation.meta.run.seed, len(names)))
        for name in names:
            masks = np.zeros((2, 40, 60), bool)
            masks[0, 10:30, 10:50] = masks[1, 15:20, 15:20] = True
            yield Sample(name, np.full((40, 60, 3), 90, np.uint8), masks, (True, False)), masks

    pictures = pictures_of(found, predict)
    assert asked == [(op, holdout, 0, 3) for holdout in "AB" for op in ("conv", "tvconv")]
    assert [(each.name, len(each.paths)) for each in pictures[0].outlines] == [("truth", 1), ("conv", 2), ("tvconv", 2)]
    assert base64.b64decode(pictures[0].photograph.partition(",")[2])[:2] == b"\xff\xd8"
    part = Part(False, (section(found, "cases", pictures=pictures),))
    shown = Parsed(rendered("report.html", title="", parts=[part], left_out=[]))
    assert [sum(tag == "image" for tag, _ in page.tags) for page in (Parsed(text), shown)] == [0, 6]
    assert "--with-photographs" in Parsed(text).sections["cases"]


def test_contours_of_a_square_in_pixels_of_a_smaller_picture():
    masks = np.zeros((2, 20, 20), bool)
    masks[0, 4:8, 4:8] = True
    (path,) = _paths(masks, (True, True), (10, 10))
    assert sorted(re.findall(r"[\d.]+ [\d.]+", path)) == ["2.2 2.2", "2.2 3.8", "3.8 2.2", "3.8 3.8"]


def test_trust_is_a_curve_for_each_run(found):
    column = found.runs[0].evaluation.meta.column
    summary = TrustSummary(column, "A", 0, 1, False, {"B": 4}, 0.1, 4, 0.1, "", {"disc": 0.1, "cup": 0.1})
    rng = np.random.default_rng(0)
    names = ("dsc_disc", "dsc_cup", "predicted_dsc_disc", "predicted_dsc_cup", "vcdr", "vcdr_truth")
    cases = pd.DataFrame(rng.uniform(size=(5, 6)), columns=names).assign(
        domain="A", case=list("abcde"), patient=list("abcde"), vcdr_low=0.0, vcdr_high=1.0
    )
    weighted = cases[["vcdr_low", "vcdr_high"]]
    own = section(found, "trust", trusted=[TrustedRun(summary, cases, 3.0, weighted)])
    assert [block.kind for block in own.blocks] == ["grid", "figure"]
    assert "kept by an oracle" in str(own.blocks[1].svg)


def test_a_grid_orders_by_numbers_in_full_and_chooses_by_texts():
    frame = pd.DataFrame({"name": ["a", "b", "a"], "value": [1.23456, np.nan, -2.0], "none": [np.nan] * 3})
    shown = (Shown("name", "name"), Shown("value", "value", 1, signed=True), Shown("none", "none", 1))
    made = grid(frame, shown, "title")
    assert [column.heading for column in made.columns] == ["name", "value"]
    assert made.columns[0].choices == ("a", "b")
    assert [row[1] for row in made.rows] == [Cell("+1.2", 1.23456), Cell(""), Cell("-2.0", -2.0)]
    assert grid(frame[:0], shown, "empty") == Grid("empty", (), ())


def test_two_figures_share_no_identifier():
    def drawn(name):
        with plot_style():
            figure = MplFigure()
            axes = figure.subplots()
            axes.plot([0, 1], [0, 1], marker="o")
            axes.set_title("a < b & $c$ \udce9")
        return str(inline_svg(figure, name))

    first, second = drawn("first"), drawn("second")
    identifiers = [set(re.findall(r' id="([^"]*)"', each)) for each in (first, second)]
    assert identifiers[0] and not identifiers[0] & identifiers[1]
    assert r"a &lt; b &amp; $c$ \xe9" in first
    assert "xmlns" not in first and "<style" not in first


def test_a_file_of_epochs_that_is_damaged_is_named(tmp_path):
    (write_run(tmp_path) / "metrics.csv").write_text("epoch\n")
    (found,) = find_results([tmp_path])
    with pytest.raises(RunError, match=r"metrics\.csv: cannot be read"):
        section(found, "curves")


def test_folders_without_scores_are_refused(tmp_path):
    with pytest.raises(RunError, match="no scores below; `fundus-seg evaluate` makes them"):
        find_results([tmp_path])


def test_scores_by_two_protocols_are_refused(tmp_path):
    write_run(tmp_path)
    write_run(tmp_path, "scoring.threshold=0.5", holdout="B")
    with pytest.raises(ProtocolError, match="two scoring protocols"):
        find_results([tmp_path])


def test_masks_of_another_tool_alone_have_a_page(tmp_path, truth):
    pairs = pair_masks([str(truth)], [str(truth)])
    score_masks(pairs, name="nnunet", holdout="A", out=tmp_path / "scores")
    (found,) = find_results([tmp_path / "scores"])
    page = Parsed(report_page([found], QUICK))
    lacking = [name for name, text in page.sections.items() if "Left out: " in text]
    assert lacking == ["compared", "leak", "in-domain", "seen", "curves", "affinity", "trust", "published", "methods"]
    assert "nnunet" in page.sections["scores"]


def test_a_label_of_no_column_is_refused(runs):
    with pytest.raises(UsageError, match="--label none=x"):
        find_results([runs], labels={"none": "x"})


def test_networks_of_every_domain_have_a_section_alone(tmp_path):
    write_run(tmp_path, holdout="none", in_domain=True)
    told = Lines()
    (found,) = find_results([tmp_path], progress=told)
    page = Parsed(report_page([found], QUICK))
    assert "In-domain scores, no domain is unseen" in "".join(page.tables)
    assert "Left out: no run here has an unseen domain." in page.sections["scores"]
    assert any("without an unseen domain" in line for line in told.lines)


def test_the_command_says_the_size_before_it_writes(command, tmp_path):
    runs = write_run(tmp_path / "runs")
    printed = command("report", runs, "--out", "page.html", "--metrics", "dsc")
    assert re.search(r"page\.html: 0\.\d MB; no photograph in it", printed.err)
    assert Parsed((tmp_path / "page.html").read_text("utf8")).sections.keys() == SECTIONS.keys()
    assert "name the file, as" in command("report", runs, "--out", tmp_path, code=2).err


def test_every_resource_is_package_data():
    assert {path.suffix for path in Path(render.__file__).parent.iterdir() if path.is_file()} == {
        ".py", ".html", ".css", ".js"
    }  # fmt: skip


def test_checkpoints_that_are_gone_are_named_where_photographs_are_asked_for(command, tmp_path):
    run = write_run(tmp_path / "runs")
    told = command("report", run, "--with-photographs", code=1).err
    assert f"error: {run}/checkpoints/best.ckpt: the run has made it, and it is gone" in told
    assert not (tmp_path / "report.html").exists()


GUIDE = (Path(__file__).parents[1] / "docs/report.md").read_text("utf8")


def test_the_options_of_the_guide_are_there(command):
    helps = "".join(command(name, "--help").out for name in ("report", "predict"))
    assert [option for option in re.findall(r"(--[a-z-]+)", GUIDE) if option not in helps] == []


@pytest.mark.slow
def test_the_commands_of_the_guide_run(command, draw_root, tmp_path):
    root = draw_root(train=2, test=8)
    run = train(settings("train.epochs=1", "train.steps_per_epoch=1"), open_root(root), tmp_path / "trained")
    shutil.copytree(run.path, tmp_path / "runs/paper/A/tvconv/seed-0")
    (root / "Domain1/test/ROIs/image").rename(tmp_path / "photos")
    shutil.copytree(tmp_path / "photos", root / "Domain1/test/ROIs/image")
    lines = [line for block in re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL) for line in block.splitlines()]
    for line in lines:
        command(*line.split()[1:])
    assert "tvconv" in Parsed((tmp_path / "report.html").read_text("utf8")).sections["scores"]
    assert "Atest0" in Parsed((tmp_path / "predictions/report.html").read_text("utf8")).sections["photographs"]
    shown = command("report", "runs/paper", "--with-photographs", "--trust").err
    assert re.search(r"report\.html: [\d.]+ MB; it shows 6 photographs", shown)
    page = Parsed((tmp_path / "report.html").read_text("utf8"))
    assert "Left out: " not in page.sections["trust"]


def test_ensembles_are_named_as_in_the_tables_and_not_compared_with_single_networks(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path, seed=seed)
    runs = trained_runs([tmp_path])
    (ensemble,) = ensembles_of(runs)
    one = scored_runs([tmp_path])[0].evaluation
    protocol = combined(one.meta.protocol, ensemble=True)
    meta = one.meta.model_copy(
        update={"protocol": protocol, "protocol_digest": protocol.digest(), "members": {"0": "a", "1": "b"}}
    )
    write_evaluation(ensemble.evaluation(protocol.digest(), "best"), meta, one.path.read_text("utf8"))
    (found,) = find_results([tmp_path], ensemble=True)
    (printed, every), own = section(found, "scores").blocks, section(found, "published").blocks
    assert printed.columns[-1].heading == "tvconv, mean of 2" == every.rows[0][3].text
    assert "these predict together: no number is compared" in own[0].text
    first, second, evaluate, report = commands(found)
    assert "--seed 0" in first and "--seed 1" in second
    assert (evaluate, report) == (
        "fundus-seg evaluate runs --ensemble",
        "fundus-seg report runs --out report.html --ensemble",
    )
