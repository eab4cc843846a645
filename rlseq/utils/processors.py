"""The processors that this process may use: those of its affinity, as far as its control group allows."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

GROUPS, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
THREADS = "OMP_NUM_THREADS"


def processors() -> int:
    """Return the number of processors that this process may use, a part of one counted as one."""
    limit = quota(GROUPS, OWN)
    return _seen() if limit >= _seen() else max(1, math.ceil(limit))


def _seen() -> int:
    """Return the number of processors on which this process may run."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def quota(groups: Path, own: Path) -> float:
    """Return how many processors the control groups of this process may use; infinite without a limit.

    A container with `--cpus=2` sees all processors of the machine, but gets the time of two.

    Args:
        groups: where control groups are mounted.
        own: the file that lists the groups of this process, `NUMBER:CONTROLLERS:PATH` a line.
    """
    try:
        lines = own.read_text("utf-8").splitlines()
    except OSError:
        return math.inf
    found = [math.inf]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers or "cpu" in controllers.split(","):
            group = (groups / "cpu" if controllers else groups) / path.lstrip("/")
            found += [limit for folder in (group, *group.parents) for limit in _limits(folder, groups)]
    return min(found)


def _limits(folder: Path, groups: Path) -> Iterator[float]:
    """Yield the limits of one group: of version 2 in `cpu.max`, of version 1 in two files."""
    if folder != groups and groups not in folder.parents:
        return
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            numbers = " ".join((folder / name).read_text("utf-8") for name in names).split()
            given, period = float(numbers[0]), float(numbers[1])
        except (OSError, ValueError, IndexError):  # "max" is no number: there is no limit
            continue
        if given > 0 and period > 0:
            yield given / period


def limit_threads() -> None:
    """Have numerical libraries use no more threads than there are processors for this process.

    They count the processors that they see, and a container sees more than it may use. It must be called
    before torch is imported, and leaves what the user has set.
    """
    if THREADS not in os.environ and processors() < _seen():
        os.environ[THREADS] = str(processors())
