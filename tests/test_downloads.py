"""Networks that lie elsewhere, on a server of this machine."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from fundus_seg.digests import file_digest
from fundus_seg.errors import CheckpointError, UsageError
from fundus_seg.exchanged import WEIGHTS
from fundus_seg.runs.downloads import fetched
from fundus_seg.runs.model_names import is_model_name, model_path

CONTENT = b"weights" * 1000
COMMIT = "0123456789" * 4


class Server(http.server.BaseHTTPRequestHandler):
    """Gives the same bytes at any path but those with `missing`; with the headers of Hugging Face."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(404 if "missing" in self.path else 200)
        self.send_header("ETag", f'"{"a" * 40}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(CONTENT)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """The address of a server that runs; caches are empty."""
    monkeypatch.setenv("FUNDUS_SEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(Server, "asked", [])
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{running.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", address)
    yield address
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.fixture
def digest(tmp_path: Path) -> str:
    (tmp_path / "content").write_bytes(CONTENT)
    return file_digest(tmp_path / "content")


def test_a_file_is_fetched_once(server: str, digest: str) -> None:
    address = f"{server}/some/network.safetensors#sha256={digest}"
    assert is_model_name(address)
    for _ in range(2):
        assert model_path(address).read_bytes() == CONTENT
    assert Server.asked == ["/some/network.safetensors"]


def test_another_file_is_refused_and_not_kept(server: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"the file there has the SHA-256 .*, not the one that was given"):
        fetched(f"{server}/network.safetensors#sha256={'0' * 64}")
    assert list((tmp_path / "cache" / "models").iterdir()) == []


def test_one_that_is_not_there_is_one_line(server: str) -> None:
    with pytest.raises(CheckpointError, match=r"^http://[^\n]*missing: cannot be downloaded \(HTTP Error 404[^\n]*$"):
        fetched(f"{server}/missing#sha256={'0' * 64}")


def test_a_repository_of_the_hub(server: str) -> None:
    assert model_path(f"hf:owner/name@{COMMIT}").read_bytes() == CONTENT
    assert all(f"/owner/name/resolve/{COMMIT}/{WEIGHTS}" in path for path in Server.asked)
    with pytest.raises(CheckpointError, match=r"^hf:owner/missing: no model\.safetensors can be had from there"):
        fetched("hf:owner/missing")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("https://host/network.safetensors", "add #sha256= and the 64 hexadecimal digits"),
        ("https://host/network.safetensors#sha256=12", "add #sha256= and the 64 hexadecimal digits"),
        ("https://", "give https://...#sha256=DIGEST, or hf:OWNER/NAME@REVISION"),
        ("hf:owner", "give https://...#sha256=DIGEST, or hf:OWNER/NAME@REVISION"),
        ("hf:../../etc/passwd", "give https://...#sha256=DIGEST, or hf:OWNER/NAME@REVISION"),
    ],
)
def test_addresses_are_checked_before_anything_is_asked(address: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        fetched(address)
