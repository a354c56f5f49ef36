"""What the scripts share: the options of data and training, and errors in one line."""

from __future__ import annotations

import contextlib
import math
import sys
import tempfile
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

from faces import Identities, read_picture
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
    data.add_argument(
        "--side", type=at_least(1), default=side, help="side of the pictures in pixels (default: %(default)s)"
    )


def add_recipe(parser: ArgumentParser) -> None:
    """Add the options that say how long is trained; `recipe` reads them."""
    (epochs, batch), (few, small) = PAPER, PHANTOM
    told = "default: {} as in the paper, {} on the phantom"
    parser.add_argument("--epochs", type=at_least(1), help=f"passes over the pictures ({told.format(epochs, few)})")
    parser.add_argument("--batch", type=at_least(2), help=f"pictures in a step ({told.format(batch, small)})")
    parser.add_argument(
        "--workers", type=at_least(0), default=0, help="processes that read pictures (default: %(default)s)"
    )


def recipe(options: Namespace) -> dict[str, int]:
    """The arguments `epochs`, `batch` and `workers` of `train`."""
    epochs, batch = PAPER if options.train else PHANTOM
    return {"epochs": options.epochs or epochs, "batch": options.batch or batch, "workers": options.workers}


@contextlib.contextmanager
def opened(options: Namespace) -> Iterator[tuple[Identities, Pairs]]:
    """The training pictures and the pairs that the options of `add_data` name; the phantom lasts as long as the block.

    Raises:
        UsageError: only some of the three places are named.
        DataError: as `Identities` and `read_pairs`, or a picture of a pair has another size.
    """
    places = [options.train, options.pairs, options.pictures]
    if any(places) and not all(places):
        raise UsageError("--train, --pairs and --pictures belong together: name all three, or none for the phantom")
    with contextlib.ExitStack() as stack:
        if not any(places):
            drawn = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            make_faces(drawn, side=options.side)
            places = [drawn / "train", drawn / "pairs.txt", drawn / "test"]
        data, pairs = Identities(places[0], options.side), read_pairs(places[1], places[2])
        for path in {*pairs.left, *pairs.right}:
            read_picture(path, options.side)  # not only when all has been trained
        yield data, pairs


def at_least(least: int) -> Callable[[str], int]:
    """The type of an option that takes a whole number from `least` on."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise ArgumentTypeError(f"'{text}' is no whole number from {least} on")
        return int(text)

    return number


def names(text: str) -> list[str]:
    """The names of an option, separated by commas, each once.

    Raises:
        UsageError: one is empty.
    """
    found = [name.strip() for name in text.split(",")]
    if "" in found:
        raise UsageError(f"'{text}': write names with a comma between two of them")
    return list(dict.fromkeys(found))


def numbers(text: str) -> list[float]:
    """The numbers of an option, separated by commas, each once.

    Raises:
        UsageError: one is no number.
    """
    try:
        found = [float(number) for number in names(text)]
    except ValueError:
        found = [math.nan]
    if not all(map(math.isfinite, found)):
        raise UsageError(f"'{text}': write numbers with a comma between two of them")
    return list(dict.fromkeys(found))


def run(main: Callable[[], None]) -> None:
    """Run a script; an error that its user can mend is printed in one line."""
    try:
        main()
    except FundusSegError as error:
        text = str(error).rpartition(f"{type(error).__name__}: ")[2]  # behind the traceback of a process of --workers
        print(f"error: {text.strip()}", file=sys.stderr)
        sys.exit(error.exit_code)
