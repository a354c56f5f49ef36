"""From settings as they are written to settings that leave nothing open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fundus_seg.config.settings import RunConfig
from fundus_seg.errors import UsageError, unknown_name


def resolve_sources(config: RunConfig, domains: Sequence[str], *, where: Path) -> RunConfig:
    """The same settings with `data.sources` spelt out.

    Args:
        config: settings as they are written.
        domains: keys of the domains of the data root.
        where: the data root, for errors.

    Raises:
        UsageError: a holdout or source that is not in the data root, a holdout among the sources, or no source.
    """
    sources = config.data.sources
    if sources is None:
        sources = tuple(domain for domain in domains if domain != config.holdout)
    for domain in (config.holdout, *sources):
        if domain not in domains:
            raise UsageError(f"{unknown_name('domain', domain, domains)} in {where}")
    if config.holdout in sources or not sources or len(set(sources)) < len(sources):
        raise UsageError(
            f"data.sources {list(sources)} with holdout {config.holdout}: "
            "name one or more other domains, each once; the holdout never trains"
        )
    per_domain, devices = config.train.batch_per_domain, config.train.devices
    if per_domain % devices:
        raise UsageError(
            f"train.batch_per_domain {per_domain} with train.devices {devices}: each takes as many cases of every "
            f"domain; choose a multiple of {devices}"
        )
    if devices > 1 and config.train.method != "none":
        raise UsageError(
            f"train.method {config.train.method} with train.devices {devices}: a method sees whole batches; "
            "take one device"
        )
    if len(sources) * per_domain // devices < 2:
        raise UsageError(
            f"train.batch_per_domain {per_domain} with one source: batch norms need two or more cases in a batch "
            "on each device"
        )
    return config.model_copy(update={"data": config.data.model_copy(update={"sources": sources})})


def resolve_machine(config: RunConfig, recorded: Mapping[str, Any], machine: Mapping[str, Any]) -> RunConfig:
    """The same settings with what they leave to the machine spelt out.

    Args:
        config: settings, sources spelt out.
        recorded: dotted settings of the same run where it is there already; empty for a new one.
        machine: what is fast here, by setting of `train`.
    """
    chosen = {}
    for setting, choice in machine.items():
        given = getattr(config.train, setting)
        before = recorded.get(f"train.{setting}")
        chosen[setting] = next(value for value in (given, before, choice) if value is not None)
    return config.model_copy(update={"train": config.train.model_copy(update=chosen)})
