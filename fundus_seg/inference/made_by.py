"""What makes predictions, as `predictions.json` records it: a later call goes on only if it is the same."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from typing import Any

from fundus_seg.builtins import MaskFormat, Precision, Views
from fundus_seg.data.identifiers import Naming
from fundus_seg.inference.members import Member
from fundus_seg.inference.roi import Roi
from fundus_seg.inference.trust_file import TrustCalibration
from fundus_seg.protocol import PROTOCOL_VERSION


def made_by(
    members: Sequence[Member],
    form: MaskFormat,
    precision: Precision,
    views: Views,
    roi: Roi,
    identified: Naming | None,
    trust: TrustCalibration | None,
    decline_below: float | None,
    *,
    anatomical: bool,
) -> dict[str, Any]:
    """What makes predictions, as JSON reads it: equal values, equal predictions. A checkpoint holds its protocol."""
    digests = [member.digest[:16] for member in members]
    return {
        "checkpoint": digests[0] if len(digests) == 1 else digests,
        "fundus-seg": importlib.metadata.version("fundus-seg"),
        "protocol version": PROTOCOL_VERSION,
        "precision": precision,
        "mask format": form,
        "roi": roi.text,
        **({"views": views} if views != "none" else {}),
        **({"anatomical": True} if anatomical else {}),
        **({"identifiers": identified.text} if identified else {}),
        **({"trust": trust.digest} if trust else {}),
        **({"decline below": decline_below} if decline_below is not None else {}),
    }


def temperatures_of(members: Sequence[Member]) -> list[list[float]]:
    """The temperatures of each network, which calibrate probabilities and change no mask; [] unless all have some."""
    found = [list(member.calibration.temperatures) for member in members if member.calibration]
    return found if len(found) == len(members) else []
