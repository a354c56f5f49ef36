"""Compare operators at equal width: accuracy over seeds, and the interval of each difference.

    python compare.py --ops depthwise,tvconv --seeds 5 --out runs/faces

The interval is of the mean over seeds and pairs, both resampled; pairs whose left picture shows one identity are
resampled together, as the eyes of a patient are. Networks that are in the folder already are not trained again.
"""

from __future__ import annotations

import argparse

import pandas as pd
from script import run
from trained import add_grid, train_grid

from fundus_seg.statistics.intervals import bootstrap_interval, mean_sd


def percent_right(rows: pd.DataFrame, op: str, width: float) -> pd.DataFrame:
    """100 for each pair that is told right, else 0: seeds x pairs, from the rows that `train_grid` returns."""
    here = rows[(rows["op"] == op) & (rows["width"] == width)]
    return 100.0 * here.pivot(index="seed", columns="pair", values="right")


def identities(rows: pd.DataFrame) -> list[str]:
    """The identity of each pair, in the order of the columns of `percent_right`."""
    return rows.drop_duplicates("pair").sort_values("pair")["identity"].tolist()


def main() -> None:
    """Train what is not there, and print the accuracies and the differences from the first operator."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_grid(parser, widths="0.1")
    rows = train_grid(parser.parse_args())
    first, *others = rows["op"].unique()
    patients = [identities(rows)]
    for width in rows["width"].unique():
        print(f"width {width:g}, {rows['pair'].nunique()} pairs")
        for op in (first, *others):
            right = percent_right(rows, op, width)
            mean, sd = mean_sd(right.mean(axis=1))
            seeds = f"SD {sd:.2f} over {len(right)} seeds" if len(right) > 1 else "one seed"
            print(f"  {op}: {mean:.2f} % of pairs right, {seeds}")
            if op != first:
                difference = right - percent_right(rows, first, width)
                interval = bootstrap_interval(difference, patients=patients)
                print(
                    f"  {op} - {first}: {difference.to_numpy().mean():+.2f} points, 95 % interval {interval.low:+.2f} "
                    f"to {interval.high:+.2f} over {interval.over}"
                )


if __name__ == "__main__":
    run(main)
