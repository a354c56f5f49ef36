"""Reports of trust: what it is worth on an unseen domain, and what declining would gain there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from fundus_seg.evaluation.trusted import TrustedRun, TrustSummary
from fundus_seg.protocol import STRUCTURES
from fundus_seg.reporting.notes import PHANTOM_HEADING, captions, chosen_text, recipe_notes
from fundus_seg.reporting.table import Report, Table
from fundus_seg.runs.identity import Column
from fundus_seg.trust.quality import overall
from fundus_seg.trust.risk import Correlation, Share, area_under, failures_caught, rank_correlation, risk_coverage

LEAST_DISC, MOST_ERROR = 0.8, 0.1
"""A case has failed if the DSC of its disc is below the first, or its vertical cup-to-disc ratio is off by more than
the second."""
GOOD_DECLINED = 0.05
"""The share of good cases that may be declined where failures caught are counted."""
_SHOWN = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
"""Shares of the cases that are kept, of which the layout shows the loss."""
_LABELS = ("column", "unseen", "seed")


def trust_reports(measured: Sequence[TrustedRun]) -> list[Report]:
    """Trust beside the truth on unseen domains, then the loss of what is kept; of patients, then of the phantom.

    The first frame has a row for each run or ensemble: COLUMN_FIELDS, holdout, seed, networks, cases; `coverage` of the
    intervals with its band `coverage_low`, `coverage_high`, beside `nominal`, and their mean `width`; the same with
    `weighted_` by features; `rho_` of each structure with `_low` and `_high`; `aurc`, `aurc_oracle`, `aurc_chance`;
    `failures`, `caught` of them, with its band, `good_declined` and the `line` of trust. NaN where something cannot be
    measured. The second frame has a row for each run and number of kept cases: the share `kept`, and the mean loss
    `risk`, `oracle` and `chance`.
    """
    kinds = [[each for each in measured if each.calibration.phantom is phantom] for phantom in (False, True)]
    return [report for own in kinds if own for report in (_measured(own), _risk(own))]


def _measured(measured: Sequence[TrustedRun]) -> Report:
    summaries = [each.calibration for each in measured]
    names = captions(each.column for each in summaries)
    values = [_values(each) for each in measured]
    rows = tuple((*_place(own, names), *_texts(each)) for own, each in zip(summaries, values, strict=True))
    headings = {f"{100 * (1 - each.alpha):g} %" for each in summaries}
    columns = (
        f"coverage of nominal {', '.join(sorted(headings))}",
        "width",
        "weighted",
        *(f"rho {structure}" for structure in STRUCTURES),
        "AURC (oracle, chance)",
        "failures caught",
    )
    notes = (
        *recipe_notes(each.column for each in summaries),
        *dict.fromkeys(
            f"{' '.join(_place(each, names)[:2])}, {_place(each, names)[2]}: {each.text}" for each in summaries
        ),
        "of each run's checkpoint best, by its own scoring protocol, as `predict` uses it",
        "coverage: share of the true vertical cup-to-disc ratios within their intervals, with its exact binomial band "
        "of 95 %; the nominal share holds for the training domains, and nothing is guaranteed on an unseen camera",
        "weighted: the same by calibration cases that are weighted to resemble the unseen photographs (n: their "
        "effective number), which takes all photographs of the domain, without truth; open: intervals without ends",
        "rho: Spearman's correlation of predicted and true DSC, with its bootstrap interval of 95 % over patients; no "
        "evidence: the interval covers 0",
        "AURC: area under the curve of loss against the share that is kept, least for the oracle; loss: 1 - mean DSC "
        "of disc and cup; cases are kept by the mean predicted DSC of both",
        f"failure: DSC of the disc below {LEAST_DISC:g}, or vertical cup-to-disc ratio off by more than "
        f"{MOST_ERROR:g}; caught with at most {100 * GOOD_DECLINED:g} % of the good cases declined, by a line that was "
        "chosen on these cases",
    )
    frame = pd.DataFrame({**_identity(own), **each} for own, each in zip(summaries, values, strict=True))
    return Report(frame, Table(_title("Trust on unseen domains", summaries), _LABELS, columns, rows, notes))


def _risk(measured: Sequence[TrustedRun]) -> Report:
    summaries = [each.calibration for each in measured]
    names = captions(each.column for each in summaries)
    frames, rows = [], []
    for each in measured:
        losses, trust = _losses(each.cases)
        kept = np.arange(1, len(losses) + 1) / max(len(losses), 1)
        curves = {"risk": risk_coverage(losses, trust), "oracle": risk_coverage(losses, -losses)}
        own = {**curves, "chance": np.full(len(losses), losses.mean() if losses.size else math.nan)}
        frames.append(pd.DataFrame({"kept": kept, **own}).assign(**_identity(each.calibration)))
        places = [max(0, math.ceil(share * len(losses)) - 1) for share in _SHOWN] if losses.size else []
        texts = [f"{curves['risk'][place]:.3f} ({curves['oracle'][place]:.3f})" for place in places]
        rows.append((*_place(each.calibration, names), *(texts or ["missing"] * len(_SHOWN))))
    columns = tuple(f"{100 * share:g} % kept" for share in _SHOWN)
    notes = (
        "mean loss, 1 - mean DSC of disc and cup, of the cases that are trusted most; in brackets that of the oracle, "
        "which knows the losses",
    )
    frame = pd.concat(frames, ignore_index=True)
    title = _title("Loss of what is kept, unseen domains", summaries)
    return Report(
        frame[[*_identity(summaries[0]), "kept", "risk", "oracle", "chance"]],
        Table(title, _LABELS, columns, tuple(rows), notes),
    )


def _values(each: TrustedRun) -> dict[str, Any]:
    """The numbers of one run."""
    cases, summary = each.cases, each.calibration
    values: dict[str, Any] = {"cases": len(cases), "nominal": 1 - summary.alpha}
    for prefix, ends in {"": cases, "weighted_": each.weighted}.items():
        values |= {f"{prefix}{name}": value for name, value in _coverage(cases["vcdr_truth"], ends).items()}
    values["weighted_effective_cases"] = each.effective
    for structure in STRUCTURES:
        own = cases[[f"predicted_dsc_{structure}", f"dsc_{structure}", "patient"]].dropna()
        predicted, true, patients = (own[name].to_numpy() for name in own)
        found = rank_correlation(predicted, true, patients.tolist())
        values |= {f"rho_{structure}{end}": value for end, value in zip(("", "_low", "_high"), found, strict=True)}
    losses, trust = _losses(cases)
    values["aurc"], values["aurc_oracle"] = (area_under(risk_coverage(losses, by)) for by in (trust, -losses))
    values["aurc_chance"] = float(losses.mean()) if losses.size else math.nan
    error = (cases["vcdr"] - cases["vcdr_truth"]).abs()
    failed = (cases["dsc_disc"] < LEAST_DISC) | (error > MOST_ERROR)
    known = (failed | (cases["dsc_disc"].notna() & error.notna())) & _trust(cases).notna()
    caught = failures_caught(failed[known], _trust(cases)[known], good_declined=GOOD_DECLINED)
    return {
        **values,
        "failures": caught.failures.cases,
        "caught": caught.failures.hits,
        "caught_low": caught.failures.low,
        "caught_high": caught.failures.high,
        "good": caught.good.cases,
        "good_declined": caught.good.hits,
        "line": caught.line,
    }


def _coverage(true: pd.Series, ends: pd.DataFrame) -> dict[str, float]:
    """Of the cases with an interval and a truth: how many are covered, with the band, and the mean width."""
    known = true.notna() & ends["vcdr_low"].notna()
    low, high, own = ends["vcdr_low"][known], ends["vcdr_high"][known], true[known]
    share = Share.of(int(((low <= own) & (own <= high)).sum()), int(known.sum()))
    open_ends = int(((low <= 0) & (high >= 1)).sum())
    return {
        "interval_cases": share.cases,
        "covered": share.hits,
        "coverage": share.value,
        "coverage_low": share.low,
        "coverage_high": share.high,
        "width": float((high - low).mean()),
        "open": open_ends,
    }


def _texts(values: Mapping[str, Any]) -> list[str]:
    """The layout of one run's numbers."""
    weighted = "none"
    if values["weighted_interval_cases"]:
        coverage, width = values["weighted_coverage"], values["weighted_width"]
        weighted = f"{100 * coverage:.0f} %, width {width:.2f}, {values['weighted_open']} open"
        weighted += f", n {values['weighted_effective_cases']:.0f}"
    covered = Share(values["covered"], values["interval_cases"], values["coverage_low"], values["coverage_high"])
    aurc = [values[name] for name in ("aurc", "aurc_oracle", "aurc_chance")]
    return [
        _share_text(covered),
        _number(values["width"]),
        weighted,
        *(
            _rho_text(Correlation(*(values[f"rho_{name}{end}"] for end in ("", "_low", "_high"))))
            for name in STRUCTURES
        ),
        "missing" if math.isnan(aurc[0]) else "{:.3f} ({:.3f}, {:.3f})".format(*aurc),
        _caught_text(values),
    ]


def _share_text(share: Share) -> str:
    return (
        f"{100 * share.value:.0f} % [{100 * share.low:.0f}, {100 * share.high:.0f}] of {share.cases}"
        if share.cases
        else "none"
    )


def _rho_text(found: Correlation) -> str:
    if math.isnan(found.value):
        return "no evidence"
    text = f"{found.value:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"
    return text if found.is_evidence else f"{text}, no evidence"


def _caught_text(values: Mapping[str, Any]) -> str:
    if not values["failures"]:
        return f"no failure in {values['good']}"
    return f"{values['caught']} of {values['failures']}, {values['good_declined']} of {values['good']} good declined"


def _trust(cases: pd.DataFrame) -> pd.Series:
    """The number by which cases are trusted."""
    predicted = cases[[f"predicted_dsc_{structure}" for structure in STRUCTURES]]
    return predicted.apply(lambda row: overall(row), axis=1) if len(cases) else pd.Series(dtype=float)


def _losses(cases: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The loss of each case with a truth, and the number by which it is trusted."""
    losses = 1 - cases[[f"dsc_{structure}" for structure in STRUCTURES]].mean(axis=1)
    trust = _trust(cases)
    known = losses.notna() & trust.notna()
    return losses[known].to_numpy(float), trust[known].to_numpy(float)


def _title(text: str, summaries: Sequence[TrustSummary]) -> str:
    heading = PHANTOM_HEADING if summaries[0].phantom else ""
    return f"{heading}{text}, {chosen_text(each.column for each in summaries)}"


def _identity(each: TrustSummary) -> dict[str, Any]:
    return {**asdict(each.column), "holdout": each.holdout, "seed": each.seed, "networks": each.networks}


def _place(each: TrustSummary, names: Mapping[Column, str]) -> tuple[str, str, str]:
    seed = f"mean of {each.networks}" if each.networks > 1 else str(each.seed)
    return names[each.column], each.holdout, seed


def _number(value: float) -> str:
    return "none" if math.isnan(value) else f"{value:.3f}"
