"""Cells on a Ray cluster of two nodes on this machine. `make test-all` installs Ray; `make test` does without."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from predictions import written_in

from fundus_seg.config import load_config
from fundus_seg.data.layout import open_root
from fundus_seg.errors import RunError, UsageError
from fundus_seg.experiments import ray_cluster, ray_predict
from fundus_seg.experiments import ray_executor as module
from fundus_seg.experiments.executors import serial
from fundus_seg.experiments.grid_run import GridRun, Outcome
from fundus_seg.experiments.ray_executor import ray_executor
from fundus_seg.experiments.ray_predict import predict_on_ray
from fundus_seg.experiments.work import complete_run
from fundus_seg.inference import plan
from fundus_seg.inference.folder import predict_folder
from fundus_seg.inference.shards import Shard


@pytest.fixture
def runs(draw_root, tmp_path):
    """A function that plans four runs in a folder."""
    root = open_root(draw_root())

    def plan(out="runs", epochs=2):
        overrides = [f"train.epochs={epochs}", "train.precision=fp32", "train.save_every=0"]
        arguments = [{"holdout": "A", "model.op": op, "seed": seed} for seed in (0, 1) for op in ("conv", "depthwise")]
        return [
            GridRun.of(load_config("tiny", overrides=overrides, arguments=each), root, tmp_path / out)
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


def in_mid_run(runs, node):
    """Wait until a run on that node has an epoch behind it and others before it; its run."""
    while True:
        for run in runs:
            where = run.out / f"{run.config.model.op}-{run.config.seed}"
            if where.exists() and where.read_text().split()[-1:] == [node] and run.folder.checkpoint("last").exists():
                assert not run.folder.has("TRAINED"), "too fast for this test: give it more epochs"
                return run
        time.sleep(0.05)


@pytest.mark.slow
def test_a_lost_node_costs_no_run_and_no_bit(runs, cluster):
    def located(run):
        import ray

        with (run.out / f"{run.config.model.op}-{run.config.seed}").open("a") as file:
            file.write(f"{ray.get_runtime_context().get_node_id()}\n")
        return complete_run(run)

    planned = runs(epochs=12)
    hit = []

    def lose():
        hit.append(in_mid_run(planned, cluster.second.node_id))
        cluster.remove_node(cluster.second, allow_graceful=False)

    killer = threading.Thread(target=lose, daemon=True)
    killer.start()
    waiting = planned
    while waiting:  # a lost worker outlives its node by a moment: its run is then busy, and asked for again
        outcomes = list(ray_executor(address=cluster.address)(located, waiting))
        assert [(run, outcome) for run, outcome in outcomes if outcome.state == "failed"] == []
        waiting = [run for run, outcome in outcomes if outcome.state == "busy"]
    killer.join()
    (lost,) = hit
    begun = (lost.out / f"{lost.config.model.op}-{lost.config.seed}").read_text().split()
    assert begun[0] == cluster.second.node_id
    assert begun[-1] != begun[0]
    alone = runs("alone", epochs=12)
    assert {outcome.state for _, outcome in serial(complete_run, alone)} == {"done"}
    for run, expected in zip(planned, alone, strict=True):
        assert run.evaluation.read_bytes() == expected.evaluation.read_bytes(), run.name


@pytest.mark.slow
def test_a_cluster_takes_what_it_can_and_refuses_the_rest(runs, cluster, tmp_path, monkeypatch):
    import ray

    planned = runs()
    ray.init(address=cluster.address, logging_level="ERROR")
    try:
        nodes = ray_cluster.fitting_nodes(ray, 1, 0)
        assert len(nodes) == 2
        with pytest.raises(
            RunError, match=r"no node of the Ray cluster has 1 CPUs and 0\.5 GPUs for a run; ask for less"
        ):
            list(ray_executor(gpus=0.5)(complete_run, planned))

        def dies(run):
            os._exit(1)

        def raises(run):
            raise ValueError(f"of {run.name}")

        ((run, outcome),) = ray_executor()(dies, planned[:1])
        assert run == planned[0]
        assert outcome.state == "failed"
        assert outcome.reason.startswith("its worker or node died 3 times (WorkerCrashedError)")
        ((_, outcome),) = ray_executor()(raises, planned[:1])
        assert outcome.reason == f"ValueError: of {planned[0].name}"

        def lingers(run):
            if run != planned[0]:
                time.sleep(600)
            return Outcome("done", f"sees the GPUs {os.environ['CUDA_VISIBLE_DEVICES']!r}")

        outcomes = ray_executor()(lingers, planned)
        assert next(outcomes) == (planned[0], Outcome("done", "sees the GPUs ''"))
        outcomes.close()
        limit = time.monotonic() + 120
        while ray.available_resources().get("CPU") != 2:  # nobody is left at work
            assert time.monotonic() < limit, ray.available_resources()
            time.sleep(0.1)

        # Photographs that no node sees are named, and come with the run.
        unseen = replace(planned[0], data=str(tmp_path / "elsewhere"))
        sent = module._sent(ray, planned[0].data)
        with ray_cluster.token_in(unseen.out) as token:
            assert ray_cluster.survey(ray, nodes, token, {unseen.data}) == {unseen.data}
            digest = module._digests(planned)[planned[0]]
            look = ray.remote(module._work_on).remote(
                lambda run: Outcome("done", run.data), unseen, sent, digest, token
            )
            ray.wait([look])
        arrived = open_root(ray.get(look).reason)
        assert [case.name for case in arrived.cases("A", "test")] == [f"Atest{number}" for number in range(4)]

        monkeypatch.setattr(ray_cluster, "_look", lambda token, roots: (False, set()))
        with pytest.raises(
            RunError, match=r"runs: node \S+ cannot write there; put --out on a path that all nodes share"
        ):
            list(ray_executor()(complete_run, planned))
    finally:
        ray.shutdown()
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.slow
def test_shards_on_a_cluster_write_what_one_process_writes(draw_root, checkpoint, cluster, tmp_path, monkeypatch):
    import ray

    photographs = draw_root(size=90) / "Domain1/test/ROIs"
    options = {"truth": [str(photographs / "mask")], "overlay": "jpeg"}
    alone = tmp_path / "alone"
    predict_folder(checkpoint, [photographs / "image"], alone, **options)
    ray.init(address=cluster.address, logging_level="ERROR")
    try:
        table = predict_on_ray(checkpoint, [photographs / "image"], tmp_path / "out", **options)
        assert table == tmp_path / "out/cases.csv"
        assert written_in(tmp_path / "out") == written_in(alone)
        before = written_in(tmp_path / "out")
        predict_on_ray(checkpoint, [photographs / "image"], tmp_path / "out", **options)
        assert written_in(tmp_path / "out") == before

        # A photograph that cannot be read gets its row as by one process, and a node that sees another one is named.
        first, *_ = sorted((photographs / "image").iterdir())
        content = first.read_bytes()
        first.write_bytes(b"")
        assert (
            "unreadable,declined,not an image"
            in predict_on_ray(checkpoint, [photographs / "image"], tmp_path / "bad").read_text()
        )
        first.write_bytes(content)

        inputs = plan.inputs_of
        monkeypatch.setattr(
            plan, "inputs_of", lambda name, *rest: inputs(name, *rest) if name != first.stem else "0" * 16
        )
        with pytest.raises(RunError, match=rf"1 photograph of other content on a node than here, first {first}"):
            predict_on_ray(checkpoint, [photographs / "image"], tmp_path / "differs")
        monkeypatch.undo()
        assert first.stem not in (tmp_path / "differs/cases.csv").read_text()

        with pytest.raises(RunError, match=r"elsewhere: some node does not see it"):
            monkeypatch.setattr(ray_cluster, "_look", lambda token, roots: (True, {str(tmp_path / "elsewhere")}))
            predict_on_ray(checkpoint, [photographs / "image"], tmp_path / "unseen")
        monkeypatch.undo()

        def dies(*_):
            os._exit(1)

        monkeypatch.setattr(ray_predict, "_predict_shard", dies)
        with pytest.raises(
            RunError, match=r"\d of \d shards failed, first shard 1/\d: its worker or node died 3 times"
        ):
            predict_on_ray(checkpoint, [photographs / "image"], tmp_path / "dead")
    finally:
        ray.shutdown()


@pytest.mark.usefixtures("local")
def test_a_shard_that_fails_says_where_and_why(draw_root, checkpoint, tmp_path):
    photographs = draw_root(size=90) / "Domain1/test/ROIs/image"
    arguments = {"model": checkpoint, "images": [photographs], "out": tmp_path / "out"}
    with ray_cluster.token_in(tmp_path / "out") as token:
        end = ray_predict._predict_shard(arguments, Shard(1, 1), (), token)
        assert (end.failure, end.problems) == ("", ())
        other = {**arguments, "precision": "bf16"}
        end = ray_predict._predict_shard(other, Shard(1, 1), (), token)
        assert end.failure.startswith(f"node {socket.gethostname()}: {tmp_path / 'out'}: holds other predictions")


def test_what_a_node_sees(tmp_path):
    token = tmp_path / "token"
    token.touch()
    assert ray_cluster._look(token, {str(tmp_path), "/nowhere"}) == (True, {"/nowhere"})
    assert ray_cluster._look(tmp_path / "another", set()) == (False, set())
    assert ray_cluster._look(tmp_path / "missing" / "token", set()) == (False, set())


def test_a_node_fetches_a_parcel_once(runs, tmp_path, monkeypatch):
    monkeypatch.setenv("FUNDUS_SEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    fetched = []

    def get(parcel):
        fetched.append(parcel)
        return parcel

    ray = SimpleNamespace(put=lambda parcel: parcel, get=get, get_gpu_ids=list)
    monkeypatch.setattr(module, "ray_module", lambda: ray)
    first, *others = runs()
    sent = module._sent(ray, first.data)
    digests = module._digests([first, *others])
    with ray_cluster.token_in(first.out) as token:
        places = {
            module._work_on(lambda run: run.data, replace(run, data="/nowhere"), sent, digests[run], token)
            for run in (first, *others)
        }
    assert len(places) == len(fetched) == 1
    assert open_root(places.pop()).domains == open_root(first.data).domains


@pytest.fixture
def local(monkeypatch):
    """A Ray that does nothing, for what runs on a node."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for each in (module, ray_predict):
        monkeypatch.setattr(each, "ray_module", lambda: SimpleNamespace(get_gpu_ids=list))


class TestOtherPhotographs:
    """A node that has other photographs at the same path does no work on them."""

    def test_a_run_is_refused_before_it_trains(self, runs, local):
        first, *_ = planned = runs()
        digests = module._digests(planned)
        assert len(set(digests.values())) == 1
        image = open_root(first.data).cases("B", "train")[0].image
        image.write_bytes(image.with_name("Btrain1.png").read_bytes())
        with ray_cluster.token_in(first.out) as token:
            outcome = module._work_on(pytest.fail, first, None, digests[first], token)
        assert outcome.state == "failed"
        assert outcome.reason.startswith(f"{first.data}: node {socket.gethostname()} has other photographs there")

    def test_so_are_fewer_photographs_and_none(self, runs, local, tmp_path):
        first, *_ = planned = runs()
        digest = module._digests(planned)[first]
        case = open_root(first.data).cases("A", "test")[0]
        case.image.unlink()
        with ray_cluster.token_in(first.out) as token:
            outcome = module._work_on(pytest.fail, first, None, digest, token)
            assert "has other photographs there" in outcome.reason
            (tmp_path / "empty").mkdir()
            outcome = module._work_on(pytest.fail, replace(first, data=str(tmp_path / "empty")), None, digest, token)
        assert outcome.state == "failed"
        assert "holds no domain" in outcome.reason

    def test_files_that_the_run_does_not_read_may_differ(self, runs, local):
        first, *_ = planned = runs()
        digest = module._digests(planned)[first]
        case = open_root(first.data).cases("A", "train")[0]  # of the holdout
        case.image.unlink()
        with ray_cluster.token_in(first.out) as token:
            assert module._work_on(lambda run: "trained", first, None, digest, token) == "trained"


class TestCancellation:
    """A cancelled run ends, or the executor says that it does not."""

    def test_it_is_repeated_until_all_have_ended(self):
        cancelled = []
        ray = SimpleNamespace(
            cancel=lambda ref, force: cancelled.append(ref),
            wait=lambda refs, num_returns, timeout: ([refs[0]], refs[1:]) if len(cancelled) > 4 else ([], refs),
        )
        ray_cluster._cancel(ray, {"a": None, "b": None})
        assert cancelled == ["a", "b", "a", "b", "a", "b", "b"]

    def test_after_a_deadline_it_is_given_up_in_a_line(self, monkeypatch):
        monkeypatch.setattr(ray_cluster, "_PATIENCE", 0.0)
        ray = SimpleNamespace(cancel=lambda ref, force: None, wait=lambda refs, num_returns, timeout: ([], refs))
        with pytest.raises(RunError, match=r"has not ended 1 cancelled run in 0 s \(A conv seed 0\); .*`ray status`"):
            ray_cluster._cancel(ray, {"a": SimpleNamespace(name="A conv seed 0")})

    def test_a_worker_whose_token_is_gone_ends(self, tmp_path):
        program = (
            "import sys, time; from pathlib import Path; from fundus_seg.experiments import ray_cluster\n"
            "with ray_cluster.ending_without(Path(sys.argv[1])): print('at work', flush=True); time.sleep(600)"
        )
        (tmp_path / "token").touch()
        command = [sys.executable, "-c", program, tmp_path / "token"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
            assert worker.stdout.readline() == "at work\n"
            (tmp_path / "token").unlink()
            assert worker.wait(timeout=60) == 1


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"the executor ray needs Ray: pip install 'fundus-seg\[ray\]'"):
        ray_executor()
