"""A run as TensorBoard and MLflow show it: every epoch once, however often the run was interrupted."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace

import pytest
from small_runs import metrics, settings

from fundus_seg.config import flatten
from fundus_seg.data.layout import open_root
from fundus_seg.errors import RunError, UsageError
from fundus_seg.runs.folder import find_runs
from fundus_seg.training import fit, tracking, train
from fundus_seg.training.tracking import tracker

METRICS = ("lr", "loss_disc", "loss_cup", "dice_disc", "dice_cup")


@pytest.fixture
def root(draw_root):
    return open_root(draw_root())


def tracked(root, out, name):
    return train(settings("train.epochs=3"), root, out, observers=[tracker(name)])


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    """The module, with a store of files; skipped where it is not installed, since it brings two dozen packages."""
    module = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    module.set_tracking_uri((tmp_path / "store").as_uri())
    yield module
    module.set_tracking_uri(None)


def interrupt(root, out, name, monkeypatch):
    """A run that was stopped in its second epoch, after its observers were told of it."""
    original = fit._save

    def stopped(folder, config, state, *rest, **options):
        if state.epoch == 2:
            raise KeyboardInterrupt
        original(folder, config, state, *rest, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fit, "_save", stopped)
        tracked(root, out, name)
    (run,) = find_runs([out])
    return run


def test_tensorboard_shows_every_epoch_once_and_the_settings(root, tmp_path, monkeypatch):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    interrupt(root, tmp_path, "tensorboard", monkeypatch)
    run = tracked(root, tmp_path, "tensorboard")
    folder = run.path / "tensorboard"
    assert len(list(folder.iterdir())) == 1
    events = event_accumulator.EventAccumulator(str(folder))
    events.Reload()
    rows = metrics(run)
    for name in METRICS:
        shown = events.Scalars(name)
        assert [event.step for event in shown] == [1, 2, 3], name
        assert [event.value for event in shown] == pytest.approx([float(row[name]) for row in rows]), name
    from tensorboard.plugins.hparams import plugin_data_pb2

    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    started = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    assert started.hparams["optim.lr"].number_value == settings().optim.lr
    assert started.hparams["model.op"].string_value == "tvconv"


def test_a_run_that_was_not_tracked_is_shown_from_its_start(root, tmp_path, monkeypatch):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    original = fit._save

    def stopped(folder, config, state, *rest, **options):
        original(folder, config, state, *rest, **options)
        if state.epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fit, "_save", stopped)
        train(settings("train.epochs=3"), root, tmp_path)
    run = tracked(root, tmp_path, "tensorboard")
    events = event_accumulator.EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("lr")] == [1, 2, 3]


def test_mlflow_shows_every_epoch_once_and_the_settings(root, tmp_path, monkeypatch, mlflow):
    interrupt(root, tmp_path / "runs", "mlflow", monkeypatch)
    run = tracked(root, tmp_path / "runs", "mlflow")
    client = mlflow.MlflowClient()
    (experiment,) = client.search_experiments(filter_string="name = 'fundus-seg'")
    (shown,) = client.search_runs([experiment.experiment_id])
    assert (shown.info.status, shown.info.run_name) == ("FINISHED", run.path.relative_to(tmp_path / "runs").as_posix())
    assert shown.info.run_id == (run.path / "mlflow-run").read_text().strip()
    assert shown.data.params.keys() == flatten(settings().model_dump(mode="json")).keys()
    rows = metrics(run)
    for name in METRICS:
        history = sorted(client.get_metric_history(shown.info.run_id, name), key=lambda metric: metric.step)
        assert [metric.step for metric in history] == [1, 2, 3], name
        assert [metric.value for metric in history] == pytest.approx([float(row[name]) for row in rows]), name


def test_an_mlflow_run_that_is_not_in_the_store_is_told(root, tmp_path, monkeypatch, mlflow):
    interrupt(root, tmp_path / "runs", "mlflow", monkeypatch)
    mlflow.set_tracking_uri((tmp_path / "elsewhere").as_uri())
    with pytest.raises(RunError, match=r"MLflow at file:.*elsewhere: .*check MLFLOW_TRACKING_URI"):
        tracked(root, tmp_path / "runs", "mlflow")


@pytest.fixture
def store(monkeypatch):
    """Stands for Lightning's logger and MLflow's client: `answers` says whether it does, `steps` what it has."""
    there = SimpleNamespace(answers=True, steps=[], states=[], run_id="1", log_hyperparams=lambda _: None)
    there.experiment = SimpleNamespace(get_metric_history=lambda *_: [])

    def log_metrics(_, step):
        if not there.answers:
            raise ConnectionError("no route to host")
        there.steps.append(step)

    there.log_metrics, there.finalize = log_metrics, there.states.append
    module = SimpleNamespace(
        MLFlowLogger=lambda *_, **__: there,
        get_tracking_uri=lambda: "http://store",
        exceptions=SimpleNamespace(MlflowException=ConnectionError),
    )
    monkeypatch.setattr(tracking, "import_module", lambda _: module)
    return there


def test_a_store_that_goes_down_ends_no_run_and_has_every_epoch_in_the_end(root, tmp_path, store, monkeypatch, caplog):
    original = tracking.MLflowTracker.on_epoch_end

    def on_epoch_end(self, row, network):
        store.answers = row["epoch"] == 3
        original(self, row, network)

    monkeypatch.setattr(tracking.MLflowTracker, "on_epoch_end", on_epoch_end)
    run = train(settings("train.epochs=3"), root, tmp_path, observers=[tracking.MLflowTracker()])
    assert run.has("TRAINED")
    assert (store.steps, store.states) == ([1, 2, 3], ["success"])
    assert [record.getMessage() for record in caplog.records if record.name == tracking.__name__] == [
        "MLflow at http://store: no route to host; check MLFLOW_TRACKING_URI; the run goes on, its epochs follow when "
        "the store answers"
    ]


def test_a_run_does_not_begin_with_a_store_that_is_down(root, tmp_path, store):
    store.answers = False
    store.experiment.get_metric_history = lambda *_: store.log_metrics({}, 0)
    with pytest.raises(RunError, match="MLflow at http://store: no route to host; check MLFLOW_TRACKING_URI"):
        train(settings(), root, tmp_path, observers=[tracking.MLflowTracker()])


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_tracker_that_is_not_installed_names_the_command(monkeypatch, name):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=rf"{name} is not installed: pip install 'fundus-seg\[{name}\]'"):
        tracker(name)


def test_an_unknown_tracker_is_refused():
    with pytest.raises(UsageError, match="did you mean 'mlflow'"):
        tracker("mlflwo")
