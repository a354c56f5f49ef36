"""What names a network: the arguments that rebuild it, weights apart. Settings and checkpoints share it."""

from __future__ import annotations

from dataclasses import MISSING, asdict, dataclass, fields

from fundus_seg.builtins import ABLATIONS, PLACES
from fundus_seg.errors import UsageError
from fundus_seg.plugins import is_plugin, joined

_STARTS = ("random-affinity", "data-affinity")
"""Parts of an ablation that each say how the affinity maps start."""


@dataclass(frozen=True)
class NetworkSpec:
    """The arguments of `fundus_seg.models.build_model`, which says what each is; words are put into their one order.

    Raises:
        UsageError: a word of `ablation` or `placement` is unknown, is given twice, or contradicts another one; or there
            is an ablation of another built-in operator than "tvconv".
    """

    op: str
    encoder: str
    image_size: int
    aspp_channels: int
    expansion: int
    generator_channels: int
    generator_layers: int = 3
    affinity_channels: int = 4
    ablation: str = "none"
    placement: str = "aspp"

    def __post_init__(self) -> None:
        object.__setattr__(self, "ablation", "+".join(ablation_parts(self.ablation)) or "none")
        object.__setattr__(self, "placement", "+".join(placement_parts(self.placement)))
        if self.ablated and self.op != "tvconv" and not is_plugin(self.op):
            raise UsageError(
                f"ablation {self.ablation} with operator {self.op}: it changes something of tvconv alone; leave it out"
            )

    @property
    def ablated(self) -> tuple[str, ...]:
        """The parts of `ablation`; empty for "none"."""
        return ablation_parts(self.ablation)

    @property
    def places(self) -> tuple[str, ...]:
        """The parts of `placement`."""
        return placement_parts(self.placement)

    def plain(self) -> dict[str, str | int]:
        """Plain values by name, as a checkpoint holds them: of those that have a default only the others.

        So a network without what came later has the spec, and therefore the files, that it had before.
        """
        return {key: value for key, value in asdict(self).items() if OPTIONAL.get(key) != value}


OPTIONAL: dict[str, str | int] = {
    each.name: each.default for each in fields(NetworkSpec) if each.default is not MISSING
}
"""The values of a network that does not name them."""
KINDS: dict[str, type] = {each.name: {"str": str, "int": int}[str(each.type)] for each in fields(NetworkSpec)}
"""The type of each value."""


def ablation_parts(name: str) -> tuple[str, ...]:
    """The parts of `fundus_seg.builtins.ABLATIONS` that a name joins by `+`, in their order; empty for "none".

    Raises:
        UsageError: a part is unknown, is given twice, or contradicts another one.
    """
    if name == "none":
        return ()
    parts = tuple(joined("ablation", name, ABLATIONS))
    if len(starts := [part for part in parts if part in _STARTS]) > 1:
        raise UsageError(f"ablation {name}: affinity maps start in one way; leave out {' or '.join(starts)}")
    return parts


def placement_parts(name: str) -> tuple[str, ...]:
    """The parts of `fundus_seg.builtins.PLACES` that a name joins by `+`, in their order.

    Raises:
        UsageError: a part is unknown or is given twice.
    """
    return tuple(joined("placement", name, PLACES))
