"""The page that `predict --report` writes: every photograph, the worst status first; photographs only on request."""

from __future__ import annotations

import re
import shutil

import pytest
from PIL import Image
from predictions import Told, rows_of
from test_report_page import HOSTILE, Parsed

from fundus_seg.errors import RunError
from fundus_seg.inference.folder import predict_folder
from fundus_seg.reporting.page.predictions import MOST_PICTURES, predictions_page

TITLE = "A row for each photograph; in brackets the interval of the ratio, where trust is calibrated"


@pytest.fixture
def folder(photographs, checkpoint, drawn, tmp_path):
    """Predictions of four photographs, of which one was cut off."""
    drawn()
    (photographs / "image/Atest2.png").write_bytes((photographs / "image/Atest2.png").read_bytes()[:90])
    predict_folder(checkpoint, [photographs / "image"], tmp_path / "out", truth=[str(photographs / "mask")])
    return tmp_path / "out"


def test_the_worst_status_comes_first_with_the_numbers_of_the_table(folder):
    page = Parsed(predictions_page(folder)[0])
    rows = page.tables[TITLE][1:]
    assert [row[0].rpartition("/")[2] for row in rows] == ["Atest2.png", "Atest0.png", "Atest1.png", "Atest3.png"]
    assert rows[0][1] == "declined"
    column = page.tables[TITLE][0].index("DSC, disc")
    told = {row["photograph"]: row["dsc_disc"] for row in rows_of(folder / "cases.csv")}
    keys = page.keys[TITLE][1:]
    assert [key[column] for key in keys] == [told[row[0]] or None for row in rows]
    assert "4 photographs: 1 declined, 0 check, 3 ok" in page.sections["summary"]
    assert "cannot be read: 1 of 4" in page.sections["summary"]
    assert '"png"' in page.sections["made-by"]


def test_photographs_are_shown_on_request_alone(folder):
    told = Told()
    bare, shown = predictions_page(folder), predictions_page(folder, with_photographs=True, progress=told)
    assert [count for _, count in (bare, shown)] == [0, 3]
    images = [sum(tag == "image" for tag, _ in Parsed(text).tags) for text, _ in (bare, shown)]
    assert images == [0, 3]
    assert Parsed(shown[0]).sections["pictures"].count("mask") >= 1
    assert told.lines == []


def test_a_photograph_that_is_gone_is_left_out_and_said(folder, photographs):
    (photographs / "image/Atest0.png").unlink()
    told = Told()
    assert predictions_page(folder, with_photographs=True, progress=told)[1] == 2
    assert re.search(r"left out: 1 photograph, .* no longer readable to be shown there: .*Atest0\.png", told.text)


def test_hostile_names_are_texts_and_many_photographs_have_a_bound(checkpoint, drawn, tmp_path):
    drawn()
    (tmp_path / "photographs").mkdir()
    first = tmp_path / "photographs" / f"{HOSTILE.replace('/', '')}.png"
    Image.new("RGB", (40, 40), (90, 60, 30)).save(first)
    for number in range(MOST_PICTURES):
        shutil.copy(first, tmp_path / "photographs" / f"{number}.png")
    predict_folder(checkpoint, [tmp_path / "photographs"], tmp_path / "out")
    text, count = predictions_page(tmp_path / "out", with_photographs=True)
    assert count == MOST_PICTURES
    page = Parsed(text)
    assert [tag for tag, _ in page.tags if tag in ("script", "img")] == ["script"]
    assert HOSTILE.replace("/", "").replace("\u202e", "\\u202e") in page.sections["photographs"]


def test_the_phantom_has_a_part_of_its_own(checkpoint, drawn, photographs, tmp_path):
    drawn()
    shutil.copy(photographs / "image/Atest0.png", tmp_path / "phantom-A-000.png")
    predict_folder(checkpoint, [photographs / "image/Atest1.png", tmp_path / "phantom-A-000.png"], tmp_path / "out")
    page = Parsed(predictions_page(tmp_path / "out")[0])
    assert "phantom-A-000" in page.sections["phantom-photographs"] and "PHANTOM" in page.sections["phantom-photographs"]
    assert "phantom-A-000" not in page.sections["photographs"]


def test_a_folder_without_a_table_is_named(tmp_path):
    with pytest.raises(RunError, match=r"cases\.csv: not a whole table of `fundus-seg predict`"):
        predictions_page(tmp_path)


def test_the_command_writes_the_page_beside_the_table(command, checkpoint, drawn, photographs, tmp_path, monkeypatch):
    drawn()
    arguments = ("predict", checkpoint, photographs / "image", "--out", "out", "--roi", "full")
    printed = command(*arguments, "--report")
    assert "report.html: 0.0 MB; no photograph in it" in printed.err
    assert (tmp_path / "out/report.html").is_file()
    assert "give --report too" in command(*arguments, "--with-photographs", code=2).err
    monkeypatch.setattr("fundus_seg.inference.job.PredictionJob.join", lambda job: False)
    told = command(*arguments[:3], "--out", "shards", "--shard", "1/2", "--report").err
    assert "no shards/report.html yet: another shard is at work" in told
