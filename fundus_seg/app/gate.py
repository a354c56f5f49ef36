"""A gate before the page: it refuses requests of other sites and large files, and lets nothing be fetched elsewhere."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

MOST_BYTES = 200 * 2**20
"""The largest request that is taken, and so the largest photograph, in bytes."""

_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",  # NiceGUI's page holds its script, and compiles templates
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "connect-src 'self' {socket}",
        "frame-ancestors 'none'",
        "form-action 'self'",
        "base-uri 'none'",
    )
)
"""The browser refuses whatever the page would fetch from elsewhere, or send there."""


class Gate:
    """Passes on the requests that the page at an address makes itself.

    A site whose name has been made to point to this machine (DNS rebinding) shows by the header Host, and a page of
    another site that talks to this one shows by the header Origin.

    Args:
        app: gets the other requests.
        address: of the page, as `http://127.0.0.1:8765`.
    """

    def __init__(self, app: ASGIApp, address: str) -> None:
        self.app = app
        port = urlsplit(address).port
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        self._headers = {
            "Content-Security-Policy": _POLICY.format(socket=" ".join(f"ws://{each}" for each in sorted(self._hosts))),
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
        elif refusal := self._refusal(scope):
            websocket = scope["type"] == "websocket"
            refused = WebSocketClose(1008) if websocket else PlainTextResponse(refusal[1], refusal[0])
            await refused(scope, receive, send)
        else:

            async def answer(message: Message) -> None:
                if message["type"] == "http.response.start":
                    MutableHeaders(scope=message).update(self._headers)
                await send(message)

            await self.app(scope, receive, answer)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """The status and the reason of a refusal; None for a request that may pass."""
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if headers.get("host") not in self._hosts or (origin and urlsplit(origin).netloc not in self._hosts):
            return 403, "this page is for this machine alone"
        length = headers.get("content-length", "0")
        if "transfer-encoding" in headers or not length.isdecimal():
            return 411, "the length of the request is not told"
        if int(length) > MOST_BYTES:
            return 413, f"larger than {MOST_BYTES // 2**20} MB"
        return None
