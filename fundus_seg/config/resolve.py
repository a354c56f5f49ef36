"""What a run's settings leave open is decided in two moments.

- `resolve_sources`, when a run or a grid is planned: the training domains, from the domains of the data root
- `resolve_machine`, when a run begins: threads, precision and memory layout, from what is fast on the machine, or from
  what the same run recorded when it began
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from fundus_seg.config.settings import MachineSettings, PlannedRun, ResolvedRun, RunConfig
from fundus_seg.errors import UsageError, unknown_name
from fundus_seg.protocol import NONE_UNSEEN, SELECTIONS

_Run = TypeVar("_Run", bound=RunConfig)


def resolve_sources(config: RunConfig, domains: Sequence[str], *, where: Path) -> PlannedRun:
    """The settings with `data.sources` named.

    Args:
        config: settings as they are written.
        domains: keys of the domains of the data root.
        where: the data root, for errors.

    Raises:
        UsageError: the holdout or a source is not in the data root; the holdout is among the sources; there is no
            source, or one named twice; batches would be too small for batch norms; or the holdout is to select, but
            no domain is unseen.
    """
    sources = config.data.sources
    if sources is None:
        sources = tuple(domain for domain in domains if domain != config.holdout)
    for domain in (*config.unseen, *sources):
        if domain not in domains:
            valid = (*domains, NONE_UNSEEN) if domain == config.holdout else domains
            raise UsageError(f"{unknown_name('domain', domain, valid)} in {where}")
    if not config.unseen and SELECTIONS[config.train.selection].cases == "holdout":
        raise UsageError(
            f"train.selection {config.train.selection} with holdout {config.holdout}: it chooses on the unseen domain, "
            "and there is none; take --set train.selection=source-validation"
        )
    if config.holdout in sources or not sources or len(set(sources)) < len(sources):
        raise UsageError(
            f"data.sources {list(sources)} with holdout {config.holdout}: "
            "name one or more other domains, each once; the holdout never trains"
        )
    per_domain = config.train.batch_per_domain
    if len(sources) * per_domain // config.train.devices < 2:
        raise UsageError(
            f"train.batch_per_domain {per_domain} with one source: batch norms need two or more cases in a batch "
            "on each device"
        )
    return _replaced(config, PlannedRun, "data", sources=sources)


def resolve_machine(config: PlannedRun, choices: MachineSettings) -> ResolvedRun:
    """The settings with nothing left open.

    Args:
        config: settings of the run.
        choices: what is fast on this machine, or what the same run recorded when it began.
    """
    names = [name for name in MachineSettings.model_fields if getattr(config.train, name) is None]
    return _replaced(config, ResolvedRun, "train", **{name: getattr(choices, name) for name in names})


def _replaced(config: RunConfig, model: type[_Run], section: str, **values: object) -> _Run:
    """The same settings as another type, some of one section replaced."""
    content = config.model_dump()
    return model.model_validate({**content, section: {**content[section], **values}})
