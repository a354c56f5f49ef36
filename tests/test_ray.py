"""Cells on a Ray cluster of two nodes on this machine. `make test-all` installs Ray; `make test` does without."""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from fundus_seg.config import load_config
from fundus_seg.data.layout import open_root
from fundus_seg.errors import RunError, UsageError
from fundus_seg.experiments import ray_executor as module
from fundus_seg.experiments.executors import serial
from fundus_seg.experiments.grid_run import Cell, Outcome
from fundus_seg.experiments.ray_executor import ray_executor
from fundus_seg.experiments.work import run_cell


@pytest.fixture
def cells(draw_root, tmp_path):
    """A function that plans four cells in a folder."""
    root = open_root(draw_root())

    def plan(out="runs", epochs=2):
        overrides = [f"train.epochs={epochs}", "train.precision=fp32"]
        arguments = [{"holdout": "A", "model.op": op, "seed": seed} for seed in (0, 1) for op in ("conv", "depthwise")]
        return [
            Cell.of(load_config("tiny", overrides=overrides, arguments=each), root, tmp_path / out)
            for each in arguments
        ]

    return plan


@pytest.fixture
def cluster():
    """A head and a second node, of one core each, that notice a death in seconds."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    noticing = {
        "health_check_initial_delay_ms": 1000,
        "health_check_period_ms": 500,
        "health_check_failure_threshold": 4,
    }
    cluster = Cluster(initialize_head=True, head_node_args={**node, "_system_config": noticing})
    cluster.second = cluster.add_node(**node)
    cluster.wait_for_nodes()
    yield cluster
    cluster.shutdown()


def in_mid_run(cells, node):
    """Wait until a run on that node has an epoch behind it and others before it; its cell."""
    while True:
        for cell in cells:
            where = cell.out / f"{cell.config.model.op}-{cell.config.seed}"
            if where.exists() and where.read_text().split()[-1:] == [node] and cell.folder.checkpoint("last").exists():
                assert not cell.folder.has("TRAINED"), "too fast for this test: give it more epochs"
                return cell
        time.sleep(0.05)


@pytest.mark.slow
def test_a_lost_node_costs_no_cell_and_no_bit(cells, cluster):
    def located(cell):
        import ray

        with (cell.out / f"{cell.config.model.op}-{cell.config.seed}").open("a") as file:
            file.write(f"{ray.get_runtime_context().get_node_id()}\n")
        return run_cell(cell)

    planned = cells(epochs=12)
    hit = []

    def lose():
        hit.append(in_mid_run(planned, cluster.second.node_id))
        cluster.remove_node(cluster.second, allow_graceful=False)

    killer = threading.Thread(target=lose, daemon=True)
    killer.start()
    waiting = planned
    while waiting:  # a lost worker outlives its node by a moment: its cell is then busy, and asked for again
        outcomes = list(ray_executor(address=cluster.address)(located, waiting))
        assert [(cell, outcome) for cell, outcome in outcomes if outcome.state == "failed"] == []
        waiting = [cell for cell, outcome in outcomes if outcome.state == "busy"]
    killer.join()
    (lost,) = hit
    begun = (lost.out / f"{lost.config.model.op}-{lost.config.seed}").read_text().split()
    assert begun[0] == cluster.second.node_id
    assert begun[-1] != begun[0]
    alone = cells("alone", epochs=12)
    assert {outcome.state for _, outcome in serial(run_cell, alone)} == {"done"}
    for cell, expected in zip(planned, alone, strict=True):
        assert cell.evaluation.read_bytes() == expected.evaluation.read_bytes(), cell.name


@pytest.mark.slow
def test_a_cluster_takes_what_it_can_and_refuses_the_rest(cells, cluster, tmp_path, monkeypatch):
    import ray

    planned = cells()
    ray.init(address=cluster.address, logging_level="ERROR")
    try:
        nodes = module._nodes(ray, 1, 0)
        assert len(nodes) == 2
        with pytest.raises(
            RunError, match=r"no node of the Ray cluster has 1 CPUs and 0\.5 GPUs for a run; ask for less"
        ):
            list(ray_executor(gpus=0.5)(run_cell, planned))

        def dies(cell):
            os._exit(1)

        def raises(cell):
            raise ValueError(f"of {cell.name}")

        ((cell, outcome),) = ray_executor()(dies, planned[:1])
        assert cell == planned[0]
        assert outcome.state == "failed"
        assert outcome.reason.startswith("its worker or node died 3 times (WorkerCrashedError)")
        ((_, outcome),) = ray_executor()(raises, planned[:1])
        assert outcome.reason == f"ValueError: of {planned[0].name}"

        def lingers(cell):
            if cell != planned[0]:
                time.sleep(600)
            return Outcome("done", f"sees the GPUs {os.environ['CUDA_VISIBLE_DEVICES']!r}")

        outcomes = ray_executor()(lingers, planned)
        assert next(outcomes) == (planned[0], Outcome("done", "sees the GPUs ''"))
        outcomes.close()
        while ray.available_resources().get("CPU") != 2:  # nobody is left at work
            time.sleep(0.1)

        # Photographs that no node sees are named, and come with the cell.
        unseen = replace(planned[0], data=str(tmp_path / "elsewhere"))
        assert module._survey(ray, nodes, unseen.out, [unseen]) == {unseen.data}
        sent = module._sent(ray, planned[0].data)
        look = ray.remote(module._work_on).remote(lambda cell: Outcome("done", cell.data), unseen, sent)
        arrived = open_root(ray.get(look).reason)
        assert [case.name for case in arrived.cases("A", "test")] == [f"Atest{number}" for number in range(4)]

        monkeypatch.setattr(module, "_look", lambda token, roots: (False, set()))
        with pytest.raises(
            RunError, match=r"runs: node \S+ cannot write there; put --out on a path that all nodes share"
        ):
            list(ray_executor()(run_cell, planned))
    finally:
        ray.shutdown()
    assert list((tmp_path / "runs").iterdir()) == []


def test_what_a_node_sees(tmp_path):
    token = tmp_path / "token"
    token.touch()
    assert module._look(token, {str(tmp_path), "/nowhere"}) == (True, {"/nowhere"})
    assert module._look(tmp_path / "another", set()) == (False, set())
    assert module._look(tmp_path / "missing" / "token", set()) == (False, set())


def test_a_node_fetches_a_parcel_once(cells, tmp_path, monkeypatch):
    monkeypatch.setenv("FUNDUS_SEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    fetched = []

    def get(parcel):
        fetched.append(parcel)
        return parcel

    ray = SimpleNamespace(put=lambda parcel: parcel, get=get, get_gpu_ids=list)
    monkeypatch.setattr(module, "_ray", lambda: ray)
    first, *others = cells()
    sent = module._sent(ray, first.data)
    places = {
        module._work_on(lambda cell: cell.data, replace(cell, data="/nowhere"), sent) for cell in (first, *others)
    }
    assert len(places) == len(fetched) == 1
    assert open_root(places.pop()).domains == open_root(first.data).domains


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"the executor ray needs Ray: pip install 'fundus-seg\[ray\]'"):
        ray_executor()
