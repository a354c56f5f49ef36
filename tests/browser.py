"""Headless Chromium, driven through its own debugging pipe: a page is opened, asked, resized and photographed."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from itertools import count
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = "no Chromium: `make chromium` installs Debian's"


class Browser:
    """A browser with one page, in a folder of its own; it speaks NUL-ended JSON (the DevTools protocol) over two pipes.

    Args:
        folder: for the browser's own files.
    """

    def __init__(self, folder: Path) -> None:
        (own_in, own_out), (its_in, its_out) = os.pipe(), os.pipe()
        arguments = [
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe"),
            f"--user-data-dir={folder}",
        ]

        def wire() -> None:  # Chromium reads commands from 3 and writes answers to 4
            os.dup2(os.dup(its_in), 3)
            os.dup2(os.dup(own_out), 4)

        self.process = subprocess.Popen(
            [str(CHROMIUM), *arguments, "about:blank"],
            close_fds=False,
            preexec_fn=wire,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(own_out)
        os.close(its_in)
        self._write, self._read = os.fdopen(its_out, "wb", buffering=0), os.fdopen(own_in, "rb")
        self._numbers = count(1)
        self.events: list[dict[str, Any]] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.page(f"{domain}.enable")

    def send(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; what comes between is kept in `events`."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        self._write.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        text = bytearray()
        while (byte := self._read.read(1)) != b"\0":
            assert byte, "the browser has ended"
            text += byte
        return json.loads(text)

    def page(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command to the page."""
        return self.send(method, self._session, **parameters)

    def open(self, page: Path | str, width: int = 1280, height: int = 900, *, dark: bool = False) -> None:
        """Open a file or an address in a window of this size, and wait until it is loaded."""
        self.page(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.page("Emulation.setEmulatedMedia", features=[scheme])
        self.events.clear()
        self.page("Page.navigate", url=page if isinstance(page, str) else page.resolve().as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def ask(self, expression: str) -> Any:
        """The value of an expression of JavaScript in the page."""
        answer = self.page("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, expression: str, seconds: float = 60) -> None:
        """Wait until an expression of JavaScript is true."""
        end = time.monotonic() + seconds
        while not self.ask(f"Boolean({expression})"):
            assert time.monotonic() < end, f"never true: {expression}\n{self.ask('document.body.innerText')}"
            time.sleep(0.05)

    def give(self, selector: str, *files: Path) -> None:
        """Choose files in an input for files."""
        root = self.page("DOM.getDocument")["root"]["nodeId"]
        node = self.page("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.page("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def drag(self, selector: str, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Press the mouse on an element, move it and let it go; both places as shares of its width and height."""
        frame = self.ask(
            f"(() => {{const each = document.querySelector({selector!r}); each.scrollIntoView({{block: 'center'}});"
            " const {x, y, width, height} = each.getBoundingClientRect(); return [x, y, width, height]})()"
        )
        x, y, width, height = frame
        self.ask("window.drawn = 0; requestAnimationFrame(() => requestAnimationFrame(() => {window.drawn = 1}))")
        self.wait("window.drawn")
        for kind, (across, down) in (("mousePressed", start), ("mouseMoved", end), ("mouseReleased", end)):
            self.page(
                "Input.dispatchMouseEvent",
                type=kind,
                x=x + across * width,
                y=y + down * height,
                button="left",
                buttons=int(kind != "mouseReleased"),
                clickCount=int(kind != "mouseMoved"),
            )

    def press(self, key: str, code: int) -> None:
        """Press and release a key."""
        text = {"Enter": "\r", " ": " "}.get(key, "")
        for kind in ("keyDown", "keyUp"):
            own = {"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code}
            self.page("Input.dispatchKeyEvent", **own, **({"text": text} if kind == "keyDown" and text else {}))

    def picture(self, path: Path) -> Path:
        """A picture of the whole page, as PNG."""
        shot = self.page("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))
        return path

    def pdf(self) -> bytes:
        """The page as it is printed."""
        return base64.b64decode(self.page("Page.printToPDF")["data"])

    @property
    def requested(self) -> set[str]:
        """The addresses that the page has asked for since it was opened."""
        return {each["params"]["request"]["url"] for each in self._of("Network.requestWillBeSent")}

    @property
    def complaints(self) -> list[dict[str, Any]]:
        """What stands in the console since the page was opened: errors, warnings and what its policy forbade."""
        return [*self._of("Log.entryAdded"), *self._of("Runtime.exceptionThrown")]

    def _of(self, method: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event.get("method") == method]

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.send("Browser.close")
        self.process.wait(timeout=20)
        self._write.close()
        self._read.close()
