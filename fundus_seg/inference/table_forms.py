"""`cases.csv` in other forms, for programs: JSON, and Parquet, whose columns have one type whatever they hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fundus_seg.builtins import CasesFormat
from fundus_seg.errors import UsageError
from fundus_seg.inference.case_columns import BY_NAME, Kind
from fundus_seg.inference.output import Table
from fundus_seg.runs.atomic import atomic_path, write_text

_PARQUET: dict[Kind, str] = {"text": "string", "count": "int64", "place": "int64", "number": "float64"}


def check_form(form: CasesFormat) -> None:
    """Refuse a form that cannot be written here.

    Raises:
        UsageError: Parquet without pyarrow.
    """
    if form == "parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise UsageError('a table in Parquet needs pyarrow: pip install "fundus-seg[parquet]"') from error


def in_form(table: Table, form: CasesFormat) -> Path:
    """Write a table in a form too, beside its CSV; the other forms of earlier calls are removed, as out of date.

    JSON is a list with an object for each row. Numbers that are not there are null, texts are empty.

    Returns:
        The path of the form.

    Raises:
        RunError: the table is damaged, or the file cannot be written.
    """
    others: tuple[CasesFormat, ...] = ("json", "parquet")
    for other in others:
        if other != form:
            table.path.with_suffix(f".{other}").unlink(missing_ok=True)
    path = table.path.with_suffix(f".{form}")
    if form == "csv":
        return path
    rows = [{name: _value(BY_NAME[name].kind, text) for name, text in row.items()} for row in table.rows() or ()]
    if form == "json":
        write_text(path, json.dumps(rows, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
        return path
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, getattr(pa, _PARQUET[BY_NAME[name].kind])()) for name in table.columns])
    with atomic_path(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema), temporary)
    return path


def _value(kind: Kind, text: str) -> Any:
    """What a field of the CSV stands for."""
    if kind == "text":
        return text
    if not text:
        return None
    return float(text) if kind == "number" else int(float(text))
