"""The table of public data sets that `data prepare` knows."""

from __future__ import annotations

from fundus_seg.datasets import SETS


def sets() -> str:
    """A row for each set: name, domains, photographs, readers, splits, terms, and how its layout is known."""
    lines = [
        "| NAME | domains | photographs | readers | splits | licence, as found | layout |",
        "|---|---|---:|---|---|---|---|",
    ]
    for dataset in SETS.values():
        readers = ", ".join(f"**{name}**" if name == dataset.reader else name for name in dataset.drawings)
        cells = (
            f"`{dataset.name}`",
            ", ".join(domain.name for domain in dataset.domains),
            str(sum(dataset.counts.values())),
            readers,
            ", ".join(dataset.splits),
            dataset.licence,
            "verified" if dataset.verified else "from loaders",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", "Defaults are bold, or come first."])


PARTS = {"sets": sets}
