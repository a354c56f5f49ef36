from __future__ import annotations

import dataclasses
import io
import json
import math
import re

import pandas as pd
import pytest

from fundus_seg.errors import UsageError
from fundus_seg.reporting.table import Report, Table, mean_interval_text, render
from fundus_seg_cli.table import print_report

ROWS = (("HD [px]", "disc", "1.5"), ("HD [px]", "cup", "2.5"), ("ASD [px]", "disc", "0.5"))
TABLE = Table("Distances", ("metric", "structure"), ("conv [seen]",), ROWS, ("a note",))
FRAME = pd.DataFrame({"metric": ["hd", "asd"], "recipe": ["", "lr=0.1"], "mean": [1 / 3, math.nan], "runs": [3, 0]})
REPORT = Report(FRAME, TABLE)


def report_of(table):
    return Report(FRAME, table)


def test_markdown():
    assert render(REPORT, "markdown").splitlines() == [
        "**Distances**",
        "",
        "| metric | structure | conv [seen] |",
        "|---|---|---:|",
        "| HD [px] | disc | 1.5 |",
        "| HD [px] | cup | 2.5 |",
        "| ASD [px] | disc | 0.5 |",
        "",
        "- a note",
    ]


def test_csv_is_the_frame_below_title_and_notes():
    text = render(REPORT, "csv")
    assert text == "# Distances\n# a note\nmetric,recipe,mean,runs\nhd,,0.333333,3\nasd,lr=0.1,NA,0\n"
    read = pd.read_csv(io.StringIO(text), comment="#", keep_default_na=False, na_values=["NA"])
    pd.testing.assert_frame_equal(read, FRAME, rtol=1e-5)


def test_json_is_the_frame_with_title_and_notes():
    assert json.loads(render(REPORT, "json")) == {
        "title": "Distances",
        "notes": ["a note"],
        "rows": [
            {"metric": "hd", "recipe": "", "mean": pytest.approx(1 / 3), "runs": 3},
            {"metric": "asd", "recipe": "lr=0.1", "mean": None, "runs": 0},
        ],
    }


def test_latex_is_a_float_whose_rules_part_the_groups():
    assert render(REPORT, "latex").splitlines() == [
        r"\begin{table}",
        r"\centering",
        r"\caption{Distances}",
        r"\begin{tabular}{llr}",
        r"\toprule",
        r"metric & structure & conv [seen] \\",
        r"\midrule",
        r"HD [px] & disc & 1.5 \\",
        r"HD [px] & cup & 2.5 \\",
        r"\midrule",
        r"ASD [px] & disc & 0.5 \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\par\footnotesize a note",
        r"\end{table}",
    ]


def test_latex_prints_every_character_as_it_is():
    table = Table(r"p < 0.001 > 5 % & #1_a {b} $c$ ~d^2 \e ±", (), ("a",), (), ())
    assert render(report_of(table), "latex").splitlines()[2] == (
        r"\caption{p $<$ 0.001 $>$ 5 \% \& \#1\_a \{b\} \$c\$ \textasciitilde{}d\textasciicircum{}2 \textbackslash{}e"
        r" $\pm$}"
    )


def test_bold_stands_out_everywhere_but_in_csv(capsys):
    table = dataclasses.replace(TABLE, bold=frozenset({(1, 0)}))
    assert "| HD [px] | cup | **2.5** |" in render(report_of(table), "markdown")
    assert r"HD [px] & cup & \textbf{2.5} \\" in render(report_of(table), "latex")
    assert (
        render(report_of(table), "latex").count("textbf") == render(report_of(table), "markdown").count("**2.5**") == 1
    )
    assert render(report_of(table), "csv") == render(REPORT, "csv")
    print_report(report_of(table), "rich")
    assert "2.5" in capsys.readouterr().out


def test_unknown_format():
    with pytest.raises(UsageError, match="unknown format 'markdwon': did you mean 'markdown'"):
        render(REPORT, "markdwon")
    with pytest.raises(UsageError, match=r"rich is for terminals.*take one of markdown, latex, csv, json"):
        render(REPORT, "rich")


@pytest.mark.parametrize("numbers", [(99.994, 99.991, 100.0), (0.004, 0.0, 0.0051), (87.314, 84.95, 89.25)])
def test_no_value_is_printed_outside_of_its_interval(numbers):
    mean, low, high = map(float, re.findall(r"[\d.]+", mean_interval_text(*numbers)))
    assert low <= mean <= high
    assert len({len(text.partition(".")[2]) for text in re.findall(r"[\d.]+", mean_interval_text(*numbers))}) == 1


def test_a_report_shows_itself():
    assert str(REPORT) == REPORT._repr_markdown_() == render(REPORT, "markdown")


def test_the_terminal_shows_units_and_each_group_once(capsys):
    print_report(REPORT, "rich")
    out = capsys.readouterr().out
    assert out.count("HD [px]") == out.count("ASD [px]") == out.count("[seen]") == 1
    assert out.count("disc") == 2
    assert "a note" in out


def test_no_word_is_cut_where_there_is_no_terminal(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    columns = tuple(f"a-{'long' * 5}-word-{number}" for number in range(9))
    print_report(report_of(Table("Wide", ("operator",), columns, (("conv", *map(str, range(9))),), ())), "rich")
    out = capsys.readouterr().out
    assert all(column in out for column in columns)
    assert "…" not in out


def test_the_terminal_fits_the_longest_operator_in_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    columns = ("params", "baked params", "MACs [M]", "kernel MACs [M]", "latency [ms]", "IQR [ms]", "peak memory [MiB]")
    row = ("depthwise-dilated", "36944610", "19615074", "12169.2", "7730.8", "1234.56", "123.45", "1234.5")
    print_report(report_of(Table("Costs", ("operator",), columns, (row,), ())), "rich")
    assert list(row) in [line.split() for line in capsys.readouterr().out.splitlines()]
