"""Networks of several operators, widths and seeds: what each gave is kept in a folder, and not trained again.

    OUT/recipe.json                                 what all networks of the folder share
    OUT/tvconv-mobilenetv2-0.1/seed-0/pairs.csv     the similarity of each pair
    OUT/tvconv-mobilenetv2-0.1/seed-0/network.pt    the weights

A network whose `pairs.csv` is there is done, so that a grid that was stopped goes on where it stood.
"""

from __future__ import annotations

import contextlib
import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from faces import Identities
from pairs import Pairs
from script import add_data, add_recipe, at_least, names, numbers, opened, recipe
from train import FAMILIES, check_batch, make_network, train
from verification import similarities, ten_folds

from fundus_seg.errors import RunError
from fundus_seg.models.backbones import Embedder
from fundus_seg.runs.atomic import atomic_path, frame_csv, write_json, write_text


class Cell(NamedTuple):
    """One network of a grid."""

    op: str
    width: float
    seed: int


def add_grid(parser: ArgumentParser, *, widths: str) -> None:
    """Add the options that say which networks are trained, how, and where they are kept."""
    add_data(parser, side=32)
    parser.add_argument("--out", type=Path, metavar="FOLDER", required=True, help="where the networks are kept")
    parser.add_argument("--ops", default="depthwise,tvconv", help="operators (default: %(default)s)")
    parser.add_argument("--family", choices=FAMILIES, default="mobilenetv2")
    parser.add_argument("--widths", default=widths, help="width multipliers (default: %(default)s)")
    parser.add_argument("--seeds", type=at_least(1), default=5, help="how many (default: %(default)s)")
    add_recipe(parser)


def cells(options: Namespace) -> list[Cell]:
    """The networks that the options of `add_grid` name, the first seed of all before the second."""
    named = product(range(options.seeds), numbers(options.widths), names(options.ops))
    return [Cell(op, width, seed) for seed, width, op in named]


def train_grid(options: Namespace) -> pd.DataFrame:
    """Train the networks that are not there yet.

    Returns:
        A row for each network and pair, with the columns `op`, `width`, `seed`; `pair`, its number in the list,
        `identity`, `same`, `fold` and `similarity`; and `right`, whether ten folds tell it right.

    Raises:
        RunError: the folder holds networks of another recipe, or a file that cannot be read.
        UsageError, DataError: as `opened`, `make_network` and `train`.
    """
    named = cells(options)
    for cell in named[: len(named) // options.seeds]:  # those of the first seed: none may fail when others have trained
        make_network(options.family, cell.width, cell.op, side=options.side, seed=cell.seed)
    with opened(options) as (data, pairs):
        check_batch(data, recipe(options)["batch"])
        _keep_recipe(options, data, pairs)
        for cell in named:
            _train_cell(options, cell, data, pairs)
    return read_grid(options.out, options.family, named, pairs=len(pairs.same))


def read_grid(out: Path, family: str, named: Sequence[Cell], *, pairs: int) -> pd.DataFrame:
    """The rows of trained networks, as `train_grid` returns them, for so many pairs each."""
    frames = []
    for cell in named:
        path = _folder(out, family, cell) / "pairs.csv"
        with _readable(path):
            frame = pd.read_csv(path, dtype={"identity": str}, keep_default_na=False)
            if len(frame) != pairs:
                raise ValueError("cut")
            columns = (frame[name].to_numpy() for name in ("similarity", "same", "fold"))
            frames.append(frame.assign(right=ten_folds(*columns), **cell._asdict()))
    return pd.concat(frames, ignore_index=True)


def trained_network(options: Namespace, cell: Cell) -> Embedder:
    """A network of the grid with its weights, in evaluation mode."""
    network = make_network(options.family, cell.width, cell.op, side=options.side, seed=cell.seed)
    path = _folder(options.out, options.family, cell) / "network.pt"
    with _readable(path):
        network.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    return network.eval()


def _train_cell(options: Namespace, cell: Cell, data: Identities, pairs: Pairs) -> None:
    folder = _folder(options.out, options.family, cell)
    if (folder / "pairs.csv").is_file():
        return
    network = make_network(options.family, cell.width, cell.op, side=options.side, seed=cell.seed)
    for _ in train(network, data, seed=cell.seed, **recipe(options)):
        pass
    columns = {
        "pair": range(len(pairs.same)),
        "identity": pairs.identity,
        "same": pairs.same,
        "fold": pairs.fold,
        "similarity": similarities(network, pairs, options.side),
    }
    with atomic_path(folder / "network.pt") as temporary:
        torch.save(network.state_dict(), temporary)
    write_text(folder / "pairs.csv", frame_csv(pd.DataFrame(columns)))
    print(f"{folder.relative_to(options.out)}: trained", flush=True)


def _keep_recipe(options: Namespace, data: Identities, pairs: Pairs) -> None:
    here = {
        "train": str(options.train and options.train.resolve()),
        "pairs": str(options.pairs and options.pairs.resolve()),
        "pictures trained on": len(data),
        "pairs verified": len(pairs.same),
        "side": options.side,
        **{name: value for name, value in recipe(options).items() if name != "workers"},
    }
    path = options.out / "recipe.json"
    if not any(options.out.glob("*/seed-*/pairs.csv")):
        write_json(path, here)
        return
    with _readable(path):
        kept = dict(json.loads(path.read_text("utf8")))
    if kept != here:
        other = ", ".join(name for name in here if kept.get(name) != here[name])
        raise RunError(f"{path}: its networks differ from these in {other}; choose another --out")


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Within it a kept file is read; an error names it."""
    try:
        yield
    except Exception as error:  # each reader has errors of its own
        raise RunError(f"{path}: cannot be read; remove the folder that it lies in, and train again") from error


def _folder(out: Path, family: str, cell: Cell) -> Path:
    return out / f"{cell.op}-{family}-{cell.width:g}" / f"seed-{cell.seed}"
