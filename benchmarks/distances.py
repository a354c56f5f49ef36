"""Speed of scoring on one core: this package's one distance pass next to MedPy's, and the scoring of a whole case.

    make bench

All jobs run in this one process, on the outlines of a disc and a cup of usual size at 800x800. The table is written to
`distances.md`, with the targets and whether they were reached.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from medpy.metric import binary as medpy
from numpy.typing import NDArray

from fundus_seg.evaluation.score_case import score_case
from fundus_seg.hardware import machine
from fundus_seg.inference.postprocess import clean, postprocess
from fundus_seg.metrics import average_surface_distance, hausdorff, hausdorff95, surface_distances
from fundus_seg.protocol import STRUCTURES, Scoring
from timing import Timings, side_by_side

SIDE = 800
RADII = {"disc": 200, "cup": 110}
SPEED_UP, CASE_MILLISECONDS = 20, 25


def main() -> None:
    """Measure, print the table and write it to its file."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, default=Path(__file__).with_name("distances.md"))
    options.add_argument("--rounds", type=int, default=30)
    arguments = options.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    text = report(measure(arguments.rounds))
    print(text)
    arguments.out.write_text(text, "utf8")


def measure(rounds: int) -> Timings:
    """Time the distances of both structures and the scoring of a whole case."""
    probabilities, truth = drawn_case()
    prediction = postprocess(probabilities)
    threshold = Scoring().threshold

    def theirs(pred: NDArray[np.bool_], target: NDArray[np.bool_]) -> list[float]:
        return [score(pred, target, connectivity=1) for score in (medpy.hd, medpy.hd95, medpy.asd)]

    def ours(pred: NDArray[np.bool_], target: NDArray[np.bool_]) -> list[float]:
        distances = surface_distances(pred, target)
        return [score(distances) for score in (hausdorff, hausdorff95, average_surface_distance)]

    def case() -> object:
        raw = probabilities > threshold
        return score_case(clean(raw), truth, raw=raw, scoring=Scoring())

    jobs = {"whole case": case, "post-processing": lambda: postprocess(probabilities)}
    for structure, *pair in zip(STRUCTURES, prediction, truth, strict=True):
        np.testing.assert_allclose(ours(*pair), theirs(*pair), atol=1e-6)
        jobs[f"{structure}: MedPy"] = lambda pair=pair: theirs(*pair)
        jobs[f"{structure}: ours"] = lambda pair=pair: ours(*pair)
    return side_by_side(jobs, rounds=rounds, warm_up=2)


def drawn_case() -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Invented probabilities and true masks, (2, 800, 800): wavy outlines, a few pixels apart, with specks around."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    truth = np.stack([signed_distance(rows - 400, columns - 400, radius, 0.03) > 0 for radius in RADII.values()])
    logits = np.stack([signed_distance(rows - 406, columns - 395, radius, 0.06) / 4 for radius in RADII.values()])
    for row, column in rng.integers(40, SIDE - 40, (12, 2)):
        logits[:, row : row + 9, column : column + 9] *= -1
    return (1 / (1 + np.exp(-logits.clip(-30, 30)))).astype(np.float32), truth


def signed_distance(row: NDArray[np.int_], column: NDArray[np.int_], radius: float, wave: float) -> NDArray[np.float64]:
    """Pixels to the outline of a structure, positive inside."""
    angle = np.arctan2(row, column)
    return radius * (1 + wave * np.sin(3 * angle) + wave / 3 * np.cos(11 * angle)) - np.hypot(row, column)


def report(timings: Timings) -> str:
    """The text of the page: the machine, the ratios, and the times that they are computed from."""
    lines = [
        "# Scoring on one core",
        "",
        f"{machine()}. One thread. Photographs of {SIDE}x{SIDE}.",
        "",
        "Written by `make bench`, in one process. In every round each job runs once; ratios are taken within a round.",
        "Shown are the median over the rounds and, in brackets, the quartiles.",
        "",
        "| what | measured | to reach | reached |",
        "|---|---:|---:|---|",
    ]
    for structure in STRUCTURES:
        ratio = timings.ratio(f"{structure}: MedPy", f"{structure}: ours")
        held = "yes" if ratio.median >= SPEED_UP else "no"
        lines.append(
            f"| HD, HD95 and ASD of a {structure}, times faster than MedPy | {ratio} | >= {SPEED_UP} | {held} |"
        )
    case = timings.milliseconds("whole case")
    held = "yes" if case.median <= CASE_MILLISECONDS else "no"
    what = "a case from its probabilities to its records, milliseconds"
    lines += [
        f"| {what} | {case} | <= {CASE_MILLISECONDS} | {held} |",
        "",
        "A case is two structures: post-processing, overlap, all distances, sizes and faults.",
        "",
        "| job | milliseconds |",
        "|---|---:|",
        *(f"| {job} | {timings.milliseconds(job)} |" for job in timings.seconds),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
