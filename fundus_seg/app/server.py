"""The server of the page: at 127.0.0.1 alone, for this machine's own page alone, with files that end with it."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import threading
import webbrowser
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fundus_seg.app.measure import Measurer
from fundus_seg.errors import UsageError
from fundus_seg.progress import SILENT, Progress, Silent

HOST = "127.0.0.1"
_SHUTDOWN_SECONDS = 2
"""Time that open connections have to end when the server stops."""


def serve(
    models: Sequence[str | Path],
    *,
    port: int,
    decline_below: float | None = None,
    browser: bool = True,
    say: Callable[[str], None] = print,
    progress: Progress = SILENT,
) -> None:
    """Serve the page until Ctrl-C; photographs lie in a folder of this process, which ends with it.

    Args:
        models: as in `predict_folder`.
        port: where the page is; 0: a free port.
        decline_below: as in `predict_folder`.
        browser: whether the page is opened in the user's browser.
        say: gets the address of the page, once it can be opened.
        progress: gets the lines about the networks, which the page shows too.

    Raises:
        UsageError: NiceGUI is not installed, the port is taken, or as `Measurer`.
        RunError, CheckpointError: as `Measurer`.
    """
    with socket.socket() as listening, tempfile.TemporaryDirectory(prefix="fundus-seg-") as folder:
        os.environ["NICEGUI_STORAGE_PATH"] = folder
        try:
            import uvicorn

            from fundus_seg.app.page import application
        except ImportError as error:
            raise UsageError('the page needs NiceGUI: pip install "fundus-seg[app]"') from error
        _bind(listening, port)
        notes = _Notes(progress)
        measurer = Measurer(models, decline_below=decline_below, progress=notes)
        address = f"http://{HOST}:{listening.getsockname()[1]}"
        worker = ThreadPoolExecutor(1)
        try:
            made = application(measurer, worker, Path(folder), address, notes.lines)
            server = uvicorn.Server(
                uvicorn.Config(made, log_level="warning", access_log=False, timeout_graceful_shutdown=_SHUTDOWN_SECONDS)
            )
            if hasattr(signal, "SIGHUP"):  # the terminal is closed
                signal.signal(signal.SIGHUP, server.handle_exit)
            say(address)
            if browser:
                threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
            server.run(sockets=[listening])
        finally:
            worker.shutdown(cancel_futures=True)


def _bind(listening: socket.socket, port: int) -> None:
    """Listen at a port of this machine, which no other can reach."""
    if os.name == "posix":  # elsewhere it would share the port
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
        listening.listen()
    except OSError as error:
        raise UsageError(
            f"--port {port}: cannot be used ({error.strerror}); give another, or 0 for any that is free"
        ) from error


class _Notes(Silent):
    """Keeps the lines about the networks for the page, and passes them on."""

    def __init__(self, progress: Progress) -> None:
        self.lines: list[str] = []
        self._progress = progress

    def line(self, text: str) -> None:
        """Keep a line."""
        self.lines.append(text)
        self._progress.line(text)
