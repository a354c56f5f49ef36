from __future__ import annotations

import dataclasses
import io

import pandas as pd
import pytest

from fundus_seg.errors import UsageError
from fundus_seg.reporting.table import Table, render
from fundus_seg_cli.table import Format, print_table

ROWS = (("HD [px]", "disc", "1.5"), ("HD [px]", "cup", "2.5"), ("ASD [px]", "disc", "0.5"))
TABLE = Table("Distances", ("metric", "structure"), ("conv [seen]",), ROWS, ("a note",))


def test_markdown():
    assert render(TABLE, "markdown").splitlines() == [
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


def test_csv_reads_back():
    table = pd.read_csv(io.StringIO(render(TABLE, "csv")), comment="#")
    assert list(table) == ["metric", "structure", "conv [seen]"]
    assert list(table["conv [seen]"]) == [1.5, 2.5, 0.5]


def test_latex_is_a_float_whose_rules_part_the_groups():
    assert render(TABLE, "latex").splitlines() == [
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
    assert render(table, "latex").splitlines()[2] == (
        r"\caption{p $<$ 0.001 $>$ 5 \% \& \#1\_a \{b\} \$c\$ \textasciitilde{}d\textasciicircum{}2 \textbackslash{}e"
        r" $\pm$}"
    )


def test_bold_stands_out_everywhere_but_in_csv(capsys):
    table = dataclasses.replace(TABLE, bold=frozenset({(1, 0)}))
    assert "| HD [px] | cup | **2.5** |" in render(table, "markdown")
    assert r"HD [px] & cup & \textbf{2.5} \\" in render(table, "latex")
    assert render(table, "latex").count("textbf") == render(table, "markdown").count("**2.5**") == 1
    assert render(table, "csv") == render(TABLE, "csv")
    print_table(table, Format.rich)
    assert "2.5" in capsys.readouterr().out


def test_unknown_format():
    with pytest.raises(UsageError, match="unknown format 'markdwon': did you mean 'markdown'"):
        render(TABLE, "markdwon")


def test_the_terminal_shows_units_and_each_group_once(capsys):
    print_table(TABLE, Format.rich)
    out = capsys.readouterr().out
    assert out.count("HD [px]") == out.count("ASD [px]") == out.count("[seen]") == 1
    assert out.count("disc") == 2
    assert "a note" in out


def test_no_word_is_cut_where_there_is_no_terminal(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    columns = tuple(f"a-{'long' * 5}-word-{number}" for number in range(9))
    print_table(Table("Wide", ("operator",), columns, (("conv", *map(str, range(9))),), ()), Format.rich)
    out = capsys.readouterr().out
    assert all(column in out for column in columns)
    assert "…" not in out


def test_the_terminal_fits_the_longest_operator_in_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    columns = ("params", "baked params", "MACs [M]", "kernel MACs [M]", "latency [ms]", "IQR [ms]", "peak memory [MiB]")
    row = ("depthwise-dilated", "36944610", "19615074", "12169.2", "7730.8", "1234.56", "123.45", "1234.5")
    print_table(Table("Costs", ("operator",), columns, (row,), ()), Format.rich)
    assert list(row) in [line.split() for line in capsys.readouterr().out.splitlines()]
