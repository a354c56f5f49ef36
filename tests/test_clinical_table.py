"""What `fundus-seg evaluate --clinical` prints."""

from __future__ import annotations

import pandas as pd
import pytest
from small_runs import evaluation_of, identity

from fundus_seg.errors import ProtocolError
from fundus_seg.evaluation.score_case import FAULTS
from fundus_seg.protocol import Scoring
from fundus_seg.reporting.clinical import clinical_table
from fundus_seg.reporting.table import render


def case(disc, cup, *, true_disc=40, true_cup=16, disc_faults=(1, 0, 0), cup_faults=(1, 0, 0)):
    """Rows of one case: masks are squares of these sides; faults are components, holes, pixels outside the disc."""
    sides = {"disc": (disc, true_disc, disc_faults), "cup": (cup, true_cup, cup_faults)}
    return [
        {
            "structure": structure,
            **{f"{side}_{extent}": n for side, n in (("prediction", predicted), ("truth", true)) for extent in
               ("rows", "columns")},
            "prediction_pixels": predicted**2,
            "truth_pixels": true**2,
            **dict(zip(FAULTS, faults, strict=True)),
        }
        for structure, (predicted, true, faults) in sides.items()
    ]  # fmt: skip


def evaluation(*cases, operator="tvconv", holdout="A", seed=0, phantom=False, unpredicted=()):
    rows = [{"case": str(number), **row} for number, rows in enumerate(cases) for row in rows]
    run = identity(operator=operator, holdout=holdout, seed=seed)
    return evaluation_of(rows, run, phantom=phantom, unpredicted=unpredicted, selection="last", checkpoint="last")


def clinical_layout(evaluations):
    return clinical_table(evaluations).layout


def cells(table, measure, unseen):
    (row,) = (row for row in table.rows if row[:2] == (measure, unseen))
    return row[2:]


def test_errors_are_means_over_runs_of_means_over_cases():
    """True ratios 16/40 = 0.4, of areas 0.16; predicted 0.5 and 0.6 in one run, 0.3 twice in the other."""
    table = clinical_layout([
        evaluation(case(40, 20), case(40, 24)),
        evaluation(case(40, 12), case(40, 12), seed=1),
    ])  # fmt: skip
    # Run means 0.15 and 0.1: SD 0.05 / √2. Areas: (0.09 + 0.20) / 2 = 0.145 and 0.07, SD 0.075 / √2.
    assert cells(table, "vCDR error", "A") == cells(table, "hCDR error", "A") == ("0.125 ± 0.035",)
    assert cells(table, "aCDR error", "A") == ("0.107 ± 0.053",)
    assert cells(table, "vCDR error", "mean") == ("0.125",)
    assert table.title == "Clinical values, unseen domains, 2 runs per cell, selection: last"


def test_undefined_and_excluded_cases_are_counted_and_in_no_error():
    table = clinical_layout([
        evaluation(case(40, 20), case(0, 10), case(40, 20, true_cup=0), case(0, 0, true_disc=0, true_cup=0)),
        evaluation(case(40, 0), seed=1),
    ])  # fmt: skip
    assert cells(table, "vCDR error", "A") == ("0.250 ± 0.212",)  # 0.1, and 0.4 of a cup that was missed
    assert table.notes[0] == "tvconv: 1 undefined, 2 excluded of 5"
    assert table.notes[-1].startswith(f"scoring protocol {Scoring().digest()}")


def test_a_run_without_any_ratio_is_missing():
    table = clinical_layout([evaluation(case(0, 10))])
    assert cells(table, "vCDR error", "A") == cells(table, "vCDR error", "mean") == ("missing",)
    assert cells(table, "cup outside disc", "A") == ("0 of 1",)
    assert table.notes[0] == "tvconv: 1 undefined, 0 excluded of 1"


def test_impossible_predictions_are_counted_over_runs_once_a_case():
    broken = case(40, 20, disc_faults=(3, 1, 0), cup_faults=(2, 0, 7))
    table = clinical_layout([
        evaluation(broken, case(40, 20)),
        evaluation(case(40, 20, cup_faults=(1, 0, 1)), case(40, 20, true_disc=0), seed=1),
        evaluation(case(40, 20, cup_faults=(0, 0, 0)), holdout="B"),
    ])  # fmt: skip
    counts = {unseen: [cells(table, fault, unseen) for fault in ("cup outside disc", "several components", "holes")]
              for unseen in ("A", "B", "all")}  # fmt: skip
    assert counts == {
        "A": [("2 of 4",), ("1 of 4",), ("1 of 4",)],
        "B": [("0 of 1",)] * 3,
        "all": [("2 of 5",), ("1 of 5",), ("1 of 5",)],
    }


def test_a_missing_cell_is_in_no_mean_and_no_sum():
    table = clinical_layout([
        evaluation(case(40, 20), operator="conv"),
        evaluation(case(40, 20), operator="conv", holdout="B"),
        evaluation(case(40, 16), unpredicted=("eye7",)),
    ])  # fmt: skip
    assert table.columns == ("conv", "tvconv")
    assert [cells(table, "vCDR error", unseen) for unseen in ("A", "B", "mean")] == [
        ("0.100", "0.000"),
        ("0.100", "missing"),
        ("0.100", "missing"),
    ]
    assert cells(table, "holes", "all") == ("0 of 2", "missing")
    assert "tvconv, A: left out for want of a prediction: eye7" in table.notes


def test_phantom_is_named_and_stands_apart():
    runs = [evaluation(case(40, 20)), evaluation(case(40, 20), phantom=True, seed=1)]
    assert clinical_layout(runs[1:]).title.startswith("PHANTOM, synthetic photographs")
    with pytest.raises(ProtocolError, match="two kinds of photographs in one table"):
        clinical_layout(runs)
    with pytest.raises(ProtocolError, match="seed 0 stands twice"):
        clinical_layout([runs[0], evaluation(case(40, 20))])


def test_the_frame_has_a_row_a_measure_and_column():
    runs = [evaluation(case(40, 20), case(40, 24, disc_faults=(3, 0, 0))), evaluation(case(40, 12), seed=1)]
    report = clinical_table(runs)
    frame = report.frame.set_index("measure")
    assert (frame.loc["vcdr_error", "mean"], frame.loc["vcdr_error", "runs"]) == (pytest.approx(0.125), 2)
    assert pd.isna(frame.loc["vcdr_error", "invalid"])
    assert frame.loc["components", ["invalid", "predictions"]].tolist() == [1, 3]
    assert pd.isna(frame.loc["components", "mean"])
    assert frame.loc["holes", ["operator", "holdout", "selection"]].tolist() == ["tvconv", "A", "last"]
    assert "components,A,tvconv,,paper,fp32,last,NA,NA,NA,1,3" in render(report, "csv")
    assert "| vCDR error | A | 0.125 ± 0.035 |" in render(report, "markdown")
