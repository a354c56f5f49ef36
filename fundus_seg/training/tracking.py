"""Observers that show a run in TensorBoard or MLflow through Lightning's loggers.

They show the settings once, and loss, Dice and learning rate each epoch. metrics.csv stays the record: the loggers
write their own files, which are neither atomic nor guarded by the run's lease.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from fundus_seg.builtins import Tracker
from fundus_seg.config import ResolvedRun, RunConfig, flatten
from fundus_seg.errors import RunError, UsageError, unknown_name
from fundus_seg.runs.atomic import write_text
from fundus_seg.runs.folder import RunFolder
from fundus_seg.torchvision_compat import import_module
from fundus_seg.training.observer import Observer

_NO_METRICS = {"epoch", "seconds"}
_log = logging.getLogger(__name__)


class TensorBoardTracker(Observer):
    """Writes event files into the run's subfolder tensorboard/, anew when a run resumes: each epoch is there once."""

    def on_begin(self, folder: RunFolder, config: ResolvedRun, history: Sequence[Mapping[str, Any]]) -> None:
        """Show the epochs in `history`, which may be more or fewer than were shown before."""
        shutil.rmtree(folder.path / "tensorboard", ignore_errors=True)
        loggers = import_module("lightning.fabric.loggers")
        self._logger = loggers.TensorBoardLogger(folder.path, name="tensorboard", version="")
        self._config = config
        for row in history:
            self._log(row)

    def on_epoch_end(self, row: Mapping[str, Any], network: nn.Module) -> None:
        """Show one more epoch."""
        self._log(row)
        self._logger.save()
        if row["epoch"] == self._config.train.epochs:
            self._logger.finalize("success")

    def _log(self, row: Mapping[str, Any]) -> None:
        if row["epoch"] == 1:  # TensorBoard shows settings only together with the metrics that they led to
            self._logger.log_hyperparams(_hyperparameters(self._config), _metrics(row), step=1)
        else:
            self._logger.log_metrics(_metrics(row), step=row["epoch"])


class MLflowTracker(Observer):
    """Logs a run to the store that MLFLOW_TRACKING_URI names; the file mlflow-run in its folder keeps its identifier.

    A run that resumes continues its MLflow run, and logs only the epochs that are missing there. An interrupted run
    stays `RUNNING` in MLflow until it is trained to its end. A store that fails during training does not end the run.
    """

    def on_begin(self, folder: RunFolder, config: ResolvedRun, history: Sequence[Mapping[str, Any]]) -> None:
        """Find the MLflow run or make it, and show the epochs in `history` that it lacks.

        Raises:
            RunError: the store cannot be used, or does not hold the MLflow run that the folder names.
        """
        kept = folder.path / "mlflow-run"
        logging.getLogger("lightning.pytorch.loggers.mlflow").setLevel(logging.ERROR)  # it warns of a new experiment
        loggers = import_module("lightning.pytorch.loggers")
        with _store_errors():
            self._logger = loggers.MLFlowLogger(
                "fundus-seg",
                run_name="/".join(folder.path.parts[-4:]),
                tracking_uri=import_module("mlflow").get_tracking_uri(),
                run_id=kept.read_text("utf8").strip() if kept.exists() else None,
            )
            if not kept.exists():
                self._logger.log_hyperparams(_hyperparameters(config))
                write_text(kept, f"{self._logger.run_id}\n")
            there = self._logger.experiment.get_metric_history(self._logger.run_id, "lr")
        self._shown = {metric.step for metric in there}
        self._due = [*history]
        self._epochs = config.train.epochs
        self._warned = False
        self._log_due()

    def on_epoch_end(self, row: Mapping[str, Any], network: nn.Module) -> None:
        """Show one more epoch, after those that the store refused before; warn once if it refuses this one too."""
        self._due.append(row)
        try:
            self._log_due()
            if row["epoch"] == self._epochs:
                with _store_errors():
                    self._logger.finalize("success")
        except RunError as error:
            if not self._warned:
                _log.warning("%s; the run goes on, its epochs follow when the store answers", error)
            self._warned = True

    def _log_due(self) -> None:
        while self._due:
            row = self._due[0]
            if row["epoch"] not in self._shown:
                with _store_errors():
                    self._logger.log_metrics(_metrics(row), step=row["epoch"])
            del self._due[0]


TRACKERS: dict[Tracker, Callable[[], Observer]] = {
    "tensorboard": TensorBoardTracker,
    "mlflow": MLflowTracker,
}


def tracker(name: Tracker) -> Observer:
    """An observer that shows a run in `tensorboard` or `mlflow`.

    Raises:
        UsageError: another name, or one that is not installed.
    """
    if name not in TRACKERS:
        raise UsageError(unknown_name("tracker", name, TRACKERS))
    if importlib.util.find_spec(name) is None:
        raise UsageError(f"{name} is not installed: pip install 'fundus-seg[{name}]', or track with something else")
    return TRACKERS[name]()


def _hyperparameters(config: RunConfig) -> dict[str, Any]:
    return flatten(config.model_dump(mode="json"))


def _metrics(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name not in _NO_METRICS}


@contextlib.contextmanager
def _store_errors() -> Iterator[None]:
    mlflow = import_module("mlflow")
    try:
        yield
    except mlflow.exceptions.MlflowException as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise RunError(f"MLflow at {mlflow.get_tracking_uri()}: {reason}; check MLFLOW_TRACKING_URI") from error
