"""Any terminal, pipe or encoding, and any file name: right output or one line, and no number is ever cut."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from small_runs import one_of
from typer import rich_utils
from typer.main import get_command

import fundus_seg
from fundus_seg.errors import UsageError
from fundus_seg.reporting.table import Report, Table, render
from fundus_seg_cli.console import print_data, shown, standard_streams
from fundus_seg_cli.main import app
from fundus_seg_cli.options import command_class
from fundus_seg_cli.progress import Terminal
from fundus_seg_cli.table import print_report

SHORT = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
VALUES = ("87.31 ± 0.52", "123.45 [-17.0, 1234.5]", "missing")
TABLE = Table(
    "Unseen domains, 3 runs per cell",
    ("metric", "structure", "unseen"),
    ("conv", "separable.block-augment=mirror_left_right-loss=overlap_soft_dice-0e2e38e5", "tvconv (bf16) [oracle]"),
    (("DSC [%]", "disc (OD)", "A", *VALUES), ("DSC [%]", "cup (OC)", "A", *VALUES)),
    ("a note",),
    frozenset({(0, 0)}),
)


def report_of(table):
    return Report(None, table)


def printed(table, width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    capsys.readouterr()
    with standard_streams():
        print_report(report_of(table), "rich")
    return capsys.readouterr().out


class TestWidth:
    @pytest.mark.parametrize("width", [0, 1, 10, 20, 40, 60, 79, 100, 200])
    def test_no_number_is_cut(self, width, capsys, monkeypatch):
        out = printed(TABLE, width, capsys, monkeypatch)
        assert "…" not in out
        words = out.split()
        for number in ("87.31", "0.52", "123.45", "[-17.0,", "1234.5]", "missing"):
            assert words.count(number) == 2, (width, number)

    @pytest.mark.parametrize("width", [24, 40, 60, 79, 100])
    def test_what_can_fit_does(self, width, capsys, monkeypatch):
        *table, _ = printed(TABLE, width, capsys, monkeypatch).splitlines()[1:]  # neither title nor note
        assert max(map(cell_len, table)) <= max(width, cell_len(TABLE.columns[1]) + 3)

    @pytest.mark.parametrize("width", [80, 100, 120, 200])
    def test_headings_stay_readable(self, width, capsys, monkeypatch):
        """Broken between words, and long names behind a dash; what stands in brackets is not broken."""
        columns = ("difference [95 %]", *TABLE.columns[1:])
        lines = printed(replace(TABLE, columns=columns), width, capsys, monkeypatch).split("\n")
        header = " ".join(lines[1 : next(number for number, line in enumerate(lines) if "──" in line)])
        words = {"metric", "structure", "unseen", "difference", "tvconv", "(bf16)", "[oracle]"}
        assert words <= set(header.split())
        assert "[95 %]" in header
        assert all(piece in header for piece in ("separable.block-", "augment=mirror_left_right-", "0e2e38e5"))

    def test_a_width_of_no_columns_says_nothing(self, capsys, monkeypatch):
        assert printed(TABLE, 0, capsys, monkeypatch) == printed(TABLE, "wide", capsys, monkeypatch)
        assert "COLUMNS" not in os.environ

    def test_a_narrow_terminal_reads_row_by_row(self, capsys, monkeypatch):
        table = Table("T", ("metric", "unseen"), ("conv",), (("DSC [%]", "A", "87.31 ± 0.52"),), ())
        assert printed(table, 16, capsys, monkeypatch).splitlines() == ["T", "DSC [%], A", "  conv: 87.31 ±", "   0.52"]

    @pytest.mark.parametrize("width", [20, 40, 80, 120])
    def test_the_bar_keeps_its_width_and_its_numbers(self, width, monkeypatch):
        monkeypatch.setenv("COLUMNS", str(width))
        terminal, file = Terminal(), io.StringIO()
        terminal.console = Console(file=file, force_terminal=True, width=width)
        with terminal.task("reading " + 20 * "/a/long/path", total=1234) as advance:
            advance(loss=0.25, dice="a" * 50)
        assert "1/1234" in file.getvalue()
        if width >= 80:
            assert "━" * 20 in file.getvalue()


class TestNames:
    HOSTILE = "a\x1b]0;owned\x07b\rc :100: [bold]d[/bold] |e|"

    def test_nothing_in_a_name_is_interpreted(self, capsys, monkeypatch):
        table = Table(self.HOSTILE, ("case",), (self.HOSTILE,), ((self.HOSTILE, "1"),), (self.HOSTILE,))
        out = printed(table, 200, capsys, monkeypatch)
        assert not set("\x1b\x07\r") & set(out)
        assert out.count(r"a\x1b]0;owned\x07b\rc") == 4
        assert out.count(":100: [bold]d[/bold]") == 4
        Terminal().line(self.HOSTILE)
        assert capsys.readouterr().err == r"a\x1b]0;owned\x07b\rc :100: [bold]d[/bold] |e|" + "\n"

    @pytest.mark.parametrize("form", ["markdown", "latex"])
    def test_nor_in_other_forms(self, form):
        table = Table(self.HOSTILE, ("case",), ("x",), ((self.HOSTILE, "1"),), ())
        text = render(report_of(table), form)
        assert not set("\x1b\x07\r") & set(text)
        assert len(text.splitlines()) == len(
            render(report_of(Table("t", ("c",), ("x",), (("a", "1"),), ())), form).splitlines()
        )

    def test_markdown_escapes_what_would_end_a_cell(self):
        text = render(report_of(Table("t", ("a|b",), ("x",), (("c|d", "1\n2"),), ())), "markdown")
        assert text.splitlines()[2:5] == ["| a\\|b | x |", "|---|---:|", "| c\\|d | 1\\n2 |"]

    def test_csv_parses_back(self):
        import pandas as pd

        names = ["a\rb", 'c"d', "e,f", "g\nh", "=1+1"]
        frame = pd.DataFrame({"case": names, "value": range(5)})
        text = render(Report(frame, Table("two\rlines", (), (), (), ())), "csv")
        read = pd.read_csv(io.StringIO(text, newline=""), comment="#", keep_default_na=False)
        assert read["case"].tolist() == names

    def test_the_right_bytes_of_a_name_reach_a_pipe(self, tmp_path):
        name = os.fsdecode(b"caf\xe9\xff")
        program = f"import os; from fundus_seg_cli.console import *\nwith standard_streams(): print_data({name!r})"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
        assert done.stdout == b"caf\xe9\xff\n"

    def test_any_name_is_one_printable_line(self, capsys):
        def check(name):
            capsys.readouterr()
            Terminal().left_out("file", "odd", [name])
            (line,) = capsys.readouterr().err.split("\n")[:-1]
            assert line.isprintable() or any(c in line for c in name)

        SHORT(given(st.text(st.characters(exclude_categories=()), min_size=1))(check))()


class TestStreams:
    def test_ascii_streams_get_stand_ins(self, monkeypatch):
        raw = io.BytesIO()
        monkeypatch.delenv("COLUMNS", raising=False)
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
        with standard_streams():
            print_report(report_of(TABLE), "rich")
            print_data("é")
        out = raw.getvalue().decode("ascii")
        assert "87.31 +/- 0.52" in out
        assert "|" not in out
        assert " ---" in out or "\n---" in out
        assert "\\xe9" in out
        assert shown("±") in ("±", "+/-")

    def test_a_full_disk_is_one_line(self, monkeypatch, capsys):
        class Full(io.RawIOBase):
            def writable(self):
                return True

            def write(self, content):
                raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(Full()), encoding="utf8"))
        with pytest.raises(SystemExit) as stopped, standard_streams():
            print("result")
        assert stopped.value.code == 1
        assert capsys.readouterr().err == "error: standard output: No space left on device\n"

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
    def test_dev_full(self):
        program = Path(sys.executable).with_name("fundus-seg")
        with Path("/dev/full").open("w") as full:
            done = subprocess.run([program, "config", "tiny"], stdout=full, stderr=subprocess.PIPE, text=True)
        assert (done.returncode, done.stderr) == (1, "error: standard output: No space left on device\n")

    def test_a_reader_that_went_away_ends_the_command_quietly(self):
        program = Path(sys.executable).with_name("fundus-seg")
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run([program, "config", "tiny"], stdout=writer, stderr=subprocess.PIPE, text=True)
        os.close(writer)
        assert (done.returncode, done.stderr) == (1, "")

    def test_an_error_of_the_system_is_one_line(self, capsys):
        with pytest.raises(SystemExit) as stopped, standard_streams():
            raise PermissionError(errno.EACCES, "Permission denied", "secret\x07")
        assert stopped.value.code == 1
        assert capsys.readouterr().err == "error: secret\\x07: Permission denied\n"


class TestHome:
    def expanded(self, argument):
        app = typer.Typer()
        given = []

        @app.command(cls=command_class())
        def take(path: str = "", out: str = "") -> None:
            given.append(out)

        app(["--out", argument], standalone_mode=False)
        return given[0]

    @pytest.mark.parametrize(
        ("argument", "there"),
        [("--out=~/x", "--out={}/x"), ("~/x", "{}/x"), ("--out=a~/x", "--out=a~/x"), ("~x", "~x"), ("~", "{}")],
    )
    def test_a_tilde_is_the_home_folder(self, argument, there, monkeypatch):
        monkeypatch.setenv("HOME", "/home/ada")
        assert self.expanded(argument) == there.format("/home/ada")

    def test_nobody_has_no_home(self, monkeypatch):
        monkeypatch.delenv("HOME", raising=False)
        monkeypatch.setattr(os, "getuid", lambda: 54321)
        with pytest.raises(UsageError, match="no home folder"):
            self.expanded("--out=~/x")


@pytest.mark.parametrize("columns", one_of("20", "1", "79", "80", "0", "no"))
def test_help_of_any_width_names_every_option(command, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(rich_utils, "MAX_WIDTH", rich_utils.MAX_WIDTH)
    group = get_command(app)
    for name, each in [*group.commands.items(), *group.commands["data"].commands.items()]:
        told = command(*(["data"] if name in group.commands["data"].commands else []), name, "--help").out
        options = [option for param in each.params for option in param.opts if option.startswith("-")]
        assert [option for option in options if option not in told] == []
        assert "\u2026" not in told


def test_version(command):
    assert command("--version").out == f"fundus-seg {fundus_seg.__version__}\n"
