from __future__ import annotations

import json
import sys

import pytest
from predictions import rows_of

from fundus_seg.errors import UsageError
from fundus_seg.inference.case_columns import BY_NAME
from fundus_seg.inference.folder import predict_folder


@pytest.fixture
def folder(photographs, drawn):
    """Four photographs, of which one cannot be read."""
    (photographs / "image/Atest3.png").write_bytes(b"")
    drawn()
    return photographs / "image"


def test_json_holds_what_the_csv_holds_with_numbers_as_numbers(checkpoint, folder, tmp_path):
    path = predict_folder(checkpoint, [folder], tmp_path / "out", cases="json")
    assert path == tmp_path / "out/cases.json"
    rows = json.loads(path.read_text("utf8"))
    for row, texts in zip(rows, rows_of(tmp_path / "out/cases.csv"), strict=True):
        assert list(row) == list(texts)
        for name, text in texts.items():
            kind = BY_NAME[name].kind
            assert row[name] == (text if kind == "text" else None if not text else float(text))
            assert not (kind in ("count", "place") and isinstance(row[name], float))
    assert [row["vertical_cdr"] is None for row in rows] == [False, False, False, True]


def test_a_form_that_is_not_asked_for_again_does_not_stay_behind(checkpoint, folder, tmp_path):
    predict_folder(checkpoint, [folder], tmp_path / "out", cases="json")
    assert predict_folder(checkpoint, [folder], tmp_path / "out") == tmp_path / "out/cases.csv"
    assert not (tmp_path / "out/cases.json").exists()


def test_columns_of_parquet_have_one_type_whatever_they_hold(checkpoint, folder, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(predict_folder(checkpoint, [folder], tmp_path / "out", cases="parquet"))
    types = {field.name: str(field.type) for field in table.schema}
    kinds = {"text": "string", "count": "int64", "place": "int64", "number": "double"}
    assert types == {name: kinds[BY_NAME[name].kind] for name in types}
    assert table["disc_pixels"].to_pylist()[3] is None


def test_parquet_without_pyarrow_names_the_extra(checkpoint, folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r'pip install "fundus-seg\[parquet\]"'):
        predict_folder(checkpoint, [folder], tmp_path / "out", cases="parquet")
    assert not (tmp_path / "out").exists()
