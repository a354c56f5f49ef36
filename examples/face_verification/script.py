"""What the scripts share: the options of data and training, and errors in one line."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

from faces import Identities
from pairs import Pairs, read_pairs
from phantom import make_faces

from fundus_seg.errors import FundusSegError, UsageError

PAPER, PHANTOM = (38, 512), (60, 64)
"""Epochs and batch where the options do not say them."""


def add_data(parser: ArgumentParser, *, side: int) -> None:
    """Add the options that say what is trained on and verified."""
    data = parser.add_argument_group("data", "Without these a phantom is drawn: faces of nobody.")
    data.add_argument("--train", type=Path, metavar="FOLDER", help="folder with a folder of pictures for each identity")
    data.add_argument("--pairs", type=Path, metavar="LIST", help="list of pairs, or of CFP the folder Protocol")
    data.add_argument("--pictures", type=Path, metavar="FOLDER", help="folder of the pictures that the pairs name")
    data.add_argument("--side", type=int, default=side, help="side of the pictures in pixels (default: %(default)s)")


def add_recipe(parser: ArgumentParser) -> None:
    """Add the options that say how long is trained; `recipe` reads them."""
    (epochs, batch), (few, small) = PAPER, PHANTOM
    told = "default: {} as in the paper, {} on the phantom"
    parser.add_argument("--epochs", type=int, help=f"passes over the pictures ({told.format(epochs, few)})")
    parser.add_argument("--batch", type=int, help=f"pictures in a step ({told.format(batch, small)})")
    parser.add_argument("--workers", type=int, default=0, help="processes that read pictures (default: %(default)s)")


def recipe(options: Namespace) -> dict[str, int]:
    """The arguments `epochs`, `batch` and `workers` of `train`."""
    epochs, batch = PAPER if options.train else PHANTOM
    return {"epochs": options.epochs or epochs, "batch": options.batch or batch, "workers": options.workers}


@contextlib.contextmanager
def opened(options: Namespace) -> Iterator[tuple[Identities, Pairs]]:
    """The training pictures and the pairs that the options of `add_data` name; the phantom lasts as long as the block.

    Raises:
        UsageError: only some of the three places are named.
        DataError: as `Identities` and `read_pairs`.
    """
    places = [options.train, options.pairs, options.pictures]
    if any(places) and not all(places):
        raise UsageError("--train, --pairs and --pictures belong together: name all three, or none for the phantom")
    with contextlib.ExitStack() as stack:
        if not any(places):
            drawn = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            make_faces(drawn, side=options.side)
            places = [drawn / "train", drawn / "pairs.txt", drawn / "test"]
        yield Identities(places[0], options.side), read_pairs(places[1], places[2])


def numbers(text: str) -> list[float]:
    """The numbers of an option, separated by commas."""
    return [float(number) for number in text.split(",")]


def run(main: Callable[[], None]) -> None:
    """Run a script; an error that its user can mend is printed in one line."""
    try:
        main()
    except FundusSegError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
