"""The four fundus domains of the experiment, and where their photographs come from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Domain:
    """A centre: one camera, one hospital, one group of annotators."""

    key: str
    name: str
    folder: str


DOMAINS = {
    domain.key: domain
    for domain in (
        Domain("A", "Drishti-GS", "Domain1"),
        Domain("B", "RIM-ONE r3", "Domain2"),
        Domain("C", "REFUGE training set", "Domain3"),
        Domain("D", "REFUGE validation set", "Domain4"),
    )
}
"""The registry of the paper's four domains, by the letter that the paper's table uses."""
