"""A model that draws circles, a progress that remembers, and the rows of a table, for the tests of `predict`."""

from __future__ import annotations

import csv
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from drawn_masks import DrawnModel

from fundus_seg.data.framing import Framing
from fundus_seg.progress import Silent


class Told(Silent):
    """Keeps what it is told, and how far the bar went."""

    def __init__(self):
        self.lines, self.steps, self.total = [], 0, None

    @contextmanager
    def task(self, description, total):
        self.total = total

        def advance(**_):
            self.steps += 1

        yield advance

    def line(self, text):
        self.lines.append(text)

    @property
    def text(self):
        return "\n".join(self.lines)


class Drawn(DrawnModel):
    """A model whose disc and cup are circles; `before` is called with the number of each photograph."""

    framing = Framing(0.3, 0.8)

    def __init__(self, disc=0.5, cup=0.2, before=lambda number: None):
        self.radii, self.before, self.calls = (disc / 2, cup / 2), before, 0

    def __call__(self, image):
        self.calls += 1
        self.before(self.calls)
        height, width = image.shape[:2]
        rows, columns = np.mgrid[:height, :width]
        far = np.hypot((rows + 0.5) / height - 0.5, (columns + 0.5) / width - 0.5)
        return np.stack([far < radius for radius in self.radii])


def rows_of(table):
    with Path(table).open(newline="", encoding="utf8") as file:
        return list(csv.DictReader(file))


def stop_at(number, how):
    def stop(call):
        if call == number:
            how()

    return stop


def written_in(out):
    """The bytes of all files that are not hidden, by their paths below the folder."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }
