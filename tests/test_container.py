"""The limits of control groups, in trees of files as Docker, Kubernetes and SLURM leave them."""

from __future__ import annotations

import math

import pytest

from fundus_seg import container, cores

GIB = 2**30


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """A function that makes the groups that this process is in."""

    def make(membership, files):
        monkeypatch.setattr(container, "_GROUPS", tmp_path / "cgroup")
        monkeypatch.setattr(container, "_MEMBERSHIP", tmp_path / "membership")
        (tmp_path / "membership").write_text(membership)
        for name, text in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")

    return make


class TestCpus:
    @pytest.mark.parametrize(
        ("membership", "files", "limit"),
        [
            ("0::/\n", {"cpu.max": "250000 100000"}, 2.5),
            ("0::/\n", {"cpu.max": "max 100000"}, math.inf),
            ("0::/\n", {"cpu.max": "100000 0"}, math.inf),
            ("0::/\n", {}, math.inf),
            ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000"}, 3),
            ("0::/a/b\n", {"a/b/cpu.max": "200000 100000", "a/cpu.max": "300000 100000"}, 2),
            ("0::/docker/of/the/host\n", {"cpu.max": "150000 100000"}, 1.5),
            ("4:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4),
            ("4:cpuacct,cpu:/x\n", {"cpu/x/cpu.cfs_quota_us": "50000", "cpu/x/cpu.cfs_period_us": "100000"}, 0.5),
            ("4:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, math.inf),
            ("", {"cpu.max": "250000 100000"}, math.inf),
        ],
    )
    def test_limit(self, groups, membership, files, limit):
        groups(membership, files)
        assert container.cpu_limit() == limit

    def test_a_system_without_groups(self, tmp_path, monkeypatch):
        monkeypatch.setattr(container, "_MEMBERSHIP", tmp_path / "missing")
        assert container.cpu_limit() == container.memory_left() == math.inf

    @pytest.mark.parametrize(("limit", "count"), [("250000 100000", 2), ("50000 100000", 1), ("max 100000", 3)])
    def test_cores_are_whole_and_at_least_one(self, groups, monkeypatch, limit, count):
        groups("0::/\n", {"cpu.max": limit})
        monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: {3, 5, 7}, raising=False)
        assert cores.core_count() == count


class TestMemory:
    @pytest.mark.parametrize(
        ("membership", "files", "left"),
        [
            (
                "0::/\n",
                {"memory.max": 8 * GIB, "memory.current": 3 * GIB, "memory.stat": f"anon 1\ninactive_file {GIB}"},
                6 * GIB,
            ),
            ("0::/\n", {"memory.max": "max", "memory.current": 3 * GIB, "memory.stat": ""}, math.inf),
            ("0::/\n", {"memory.max": GIB, "memory.current": 2 * GIB, "memory.stat": ""}, 0),
            (
                "0::/job/step\n",
                {
                    "job/step/memory.max": "max",
                    "job/step/memory.current": 0,
                    "job/step/memory.stat": "",
                    "job/memory.max": 4 * GIB,
                    "job/memory.current": GIB,
                    "job/memory.stat": "",
                },
                3 * GIB,
            ),
            (
                "5:memory:/docker/abc\n",
                {
                    "memory/memory.limit_in_bytes": 4 * GIB,
                    "memory/memory.usage_in_bytes": 2 * GIB,
                    "memory/memory.stat": f"inactive_file 5\ntotal_inactive_file {GIB}",
                },
                3 * GIB,
            ),
            (
                "5:memory:/\n",
                {
                    "memory/memory.limit_in_bytes": 9223372036854771712,
                    "memory/memory.usage_in_bytes": 2 * GIB,
                    "memory/memory.stat": "",
                },
                math.inf,
            ),
        ],
    )
    def test_left(self, groups, membership, files, left):
        groups(membership, files)
        assert container.memory_left() == left

    def test_workers_are_dealt_by_the_smaller_of_machine_and_container(self, groups, tmp_path, monkeypatch):
        (tmp_path / "meminfo").write_text("MemAvailable:   20000000 kB\n")
        monkeypatch.setattr(container, "_MEMINFO", tmp_path / "meminfo")
        groups("0::/\n", {"memory.max": GIB, "memory.current": 0, "memory.stat": ""})
        assert container.memory_free() == GIB
        groups("0::/\n", {"memory.max": 2**50, "memory.current": 0, "memory.stat": ""})
        assert container.memory_free() == 20000000 * 1024
