"""What the container or job around this process may use: the limits of its control groups (cgroups of Linux).

Docker, Kubernetes, SLURM and systemd set them. A group's limits hold for the groups below it, so each group from this
process's up to the outermost is asked. Without such groups there is no limit.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
"""Where the groups are mounted: one tree in version 2, one for each controller in version 1."""
_MEMBERSHIP = Path("/proc/self/cgroup")
_MEMINFO = Path("/proc/meminfo")
_UNLIMITED = 2**60
"""Version 1 says so for no limit, or more."""


def cpu_limit() -> float:
    """The number of CPUs whose time this process may use, a fraction perhaps; infinite without a limit."""
    limits = [math.inf]
    for group in _own_groups(""):
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            quota, period = (group / "cpu.max").read_text().split()
            limits.append(int(quota) / int(period))  # a quota of `max` is no number
    for group in _own_groups("cpu"):
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            quota_us, period_us = (int((group / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
            limits += [quota_us / period_us] if quota_us > 0 else []
    return min(limits)


def memory_left() -> float:
    """How many bytes of memory this process and its like may still take; infinite without a limit.

    Files that the system keeps in memory count as free: it drops them when memory is short.
    """
    left = [math.inf]
    names = {
        "": ("memory.max", "memory.current", "inactive_file"),
        "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    }
    for controller, (limit, used, droppable) in names.items():
        for group in _own_groups(controller):
            with contextlib.suppress(OSError, ValueError):
                most = int((group / limit).read_text())
                taken = int((group / used).read_text())
                if most < _UNLIMITED:
                    left.append(max(0, most - max(0, taken - _statistic(group / "memory.stat", droppable))))
    return min(left)


def memory_free() -> float:
    """How many bytes of memory programs may still take, of the machine and of the container; infinite if none tells."""
    try:
        available = re.search(r"^MemAvailable: *(\d+) kB", _MEMINFO.read_text(), re.MULTILINE)
    except OSError:
        available = None
    return min(int(available[1]) * 1024 if available else math.inf, memory_left())


def _statistic(path: Path, name: str) -> int:
    """A number of memory.stat, whose lines are names and numbers; 0 if it is not there."""
    with contextlib.suppress(OSError):
        for line in path.read_text().splitlines():
            key, _, number = line.partition(" ")
            if key == name:
                return int(number)
    return 0


def _own_groups(controller: str) -> Iterator[Path]:
    """The folders of this process's group and of those around it, innermost first, as far as they are seen here.

    Args:
        controller: `cpu` or `memory` of version 1; empty for version 2.
    """
    try:
        lines = _MEMBERSHIP.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controller not in controllers.split(","):
            continue
        base = _GROUPS / controller
        inner = Path(path.lstrip("/"))
        # In a container the path may be that of the machine outside; then the container's own group is the mount.
        yield from (base / above for above in (inner, *inner.parents) if (base / above).is_dir())
