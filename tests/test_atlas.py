"""From a data root to what the atlas says of its domains."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fundus_seg.data import make_phantom, open_root
from fundus_seg.errors import DataError, UsageError
from fundus_seg.metrics.photograph import photograph_measures
from fundus_seg.reporting.atlas import MEASURES, domain_shift, make_atlas, mask_measures
from fundus_seg.reporting.atlas_tables import measures_table, shift_table
from fundus_seg_cli.main import main


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["fundus-seg", "data", "atlas", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        main()
    return left.value.code


def cases_of(**values: list[float]) -> pd.DataFrame:
    """Cases of domains whose measures all have the values of the domain."""
    rows = [{"domain": key, **dict.fromkeys(MEASURES, value)} for key, each in values.items() for value in each]
    return pd.DataFrame(rows)


def test_mask_measures_of_a_square_disc():
    """40x40 pixels from row 20 and column 10 of 100x200: area 1600 of 20000; a cup of 20 rows and 30 columns."""
    masks = np.zeros((2, 100, 200), bool)
    masks[0, 20:60, 10:50] = masks[1, 30:50, 15:45] = True
    expected = {
        "disc_diameter": 100 * np.sqrt(4 * 1600 / np.pi / 20000),
        "disc_x": 100 * 30 / 200,
        "disc_y": 100 * 40 / 100,
        "vcdr": 20 / 40,
        "acdr": 600 / 1600,
    }
    assert mask_measures(masks) == pytest.approx(expected)
    masks[1] = False
    assert [name for name, value in mask_measures(masks).items() if np.isnan(value)] == ["vcdr", "acdr"]
    masks[0] = False
    assert all(np.isnan(value) for value in mask_measures(masks).values())


def test_every_measure_has_a_label():
    image, masks = np.full((32, 32, 3), 99, np.uint8), np.zeros((2, 32, 32), bool)
    assert set(MEASURES) == {*photograph_measures(image, masks), *mask_measures(masks)}


def test_distance_of_shifted_domains_by_hand():
    """Variances 2: s = √2. Moved in order: of B, 10 to 0 and 2, 12 to 30 and 32, (10 + 8 + 18 + 20) / 4 = 14."""
    shift = domain_shift(cases_of(A=[0, 2], B=[10, 12], C=[30, 32]))["red"] * np.sqrt(2)
    assert shift.to_dict() == pytest.approx({"A": -20, "B": -14, "C": 25})


def test_other_domains_weigh_alike_however_many_cases_they_have():
    few = domain_shift(cases_of(A=[0, 2], B=[10, 12], C=[30, 32]))
    many = domain_shift(cases_of(A=[0, 2], B=[10, 12], C=[30, 32] * 50))
    spread = [np.sqrt((2 + 2 + np.var([30, 32] * count, ddof=1)) / 3) for count in (1, 50)]
    assert many.loc["A", "red"] * spread[1] == pytest.approx(few.loc["A", "red"] * spread[0])


def test_distance_sees_a_difference_of_shape_alone():
    """±1 and ±3: means are equal, every value moves by 2; variances 2 and 18 make s = √10."""
    assert abs(domain_shift(cases_of(A=[-1, 1], B=[-3, 3])).loc["A", "red"]) == pytest.approx(2 / np.sqrt(10))


def test_distances_without_spread_or_values_are_not_numbers():
    cases = cases_of(A=[1, 1], B=[2, 2]).assign(red=[1, np.nan, np.nan, np.nan])
    assert domain_shift(cases).isna().all(axis=None)
    with pytest.raises(UsageError, match="only domain A"):
        domain_shift(cases_of(A=[1, 2]))


def test_the_atlas_of_a_root_reads_every_case_and_leaves_bad_files_out(draw_root, monkeypatch, capsys, tmp_path):
    root = draw_root(domains="AB")
    image = next((root / "Domain1/train/ROIs/image").iterdir())
    image.write_bytes(b"no image")
    next((root / "Domain2/test/ROIs/mask").iterdir()).unlink()
    assert run(monkeypatch, root, "--format", "csv", "--plots", tmp_path / "plots") == 0
    shown = capsys.readouterr()
    assert f"{image}: not an image" in shown.err.replace("\n", " ")
    assert "left out: 2 files, missing or not usable, and so their cases: " in shown.err
    assert "# left out: 2 files, missing or not usable, and so their cases: " in shown.out
    header = "domain,measure,"
    first, second = (
        pd.read_csv(io.StringIO(header + text), comment="#").set_index(["domain", "measure"])
        for text in shown.out.split(header)[1:]
    )
    table = first.join(second)
    assert (table.loc[("A", "width"), "median"], table.loc[("A", "width"), "cases"]) == (64, 6)
    assert table.loc[("B", "vcdr"), "cases"] == 6
    assert table.loc[("A", "red"), "distance"] == pytest.approx(-table.loc[("B", "red"), "distance"])
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"atlas.png", "atlas.svg"}


def test_one_split_of_one_domain_has_no_distances(draw_root, monkeypatch, capsys, tmp_path):
    root = draw_root(domains="A")
    assert run(monkeypatch, root, "--split", "test", "--format", "markdown", "--plots", tmp_path / "one.svg") == 0
    shown = capsys.readouterr().out
    assert "**Domains, test split**" in shown
    assert "| cases | 4 |" in shown
    assert "distance" not in shown
    assert {path.suffix for path in tmp_path.glob("one.*")} == {".png", ".svg"}


def test_tables_say_what_they_are_of(draw_root):
    atlas = make_atlas(open_root(draw_root()))
    measures, shift = measures_table(atlas).layout, shift_table(atlas).layout
    assert measures.columns == shift.columns == ("A", "B", "C", "D")
    assert measures.rows[0] == ("cases", "7", "7", "7", "7")
    median = atlas.cases.groupby("domain")["vcdr"].median()
    row = next(row for row in measures.rows if row[0] == "vertical CDR")
    assert [text.split(" ")[0] for text in row[1:]] == [f"{value:.2f}" for value in median]
    assert len({number for number, _ in shift.bold}) == len(shift.rows) - 1  # in each row but the last
    assert any(note.startswith("for comparison") for note in shift.notes)


def test_the_phantom_is_named(tmp_path: Path) -> None:
    atlas = make_atlas(open_root(make_phantom(tmp_path / "phantom", per_domain=3)), ("train",))
    assert measures_table(atlas).layout.title.startswith("PHANTOM, ")
    assert shift_table(atlas).layout.title.startswith("PHANTOM, ")


def test_nothing_that_can_be_read_is_an_error(draw_root):
    root = draw_root(domains="A", train=1, test=1)
    for image in root.rglob("image/*.png"):
        image.write_bytes(b"")
    with pytest.raises(DataError, match="no case can be read"):
        make_atlas(open_root(root, least=1))
