"""How much a visitor may send at once: more is refused before it is read."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from glow_jax.demo.incoming import LARGEST_FILE

# A file as text, and what stands around it.
MOST_BYTES = LARGEST_FILE // 3 * 4 + (1 << 20)

_Message = MutableMapping[str, Any]  # ASGI's own type
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Message, _Receive, _Send], Awaitable[None]]


class Bounded:
    """ASGI middleware that refuses requests with more than `MOST_BYTES`."""

    def __init__(self, app: _App):
        """Wrap an application."""
        self._app = app

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Answer a request, or refuse it with status 413."""
        declared = dict(scope.get("headers", ())).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > MOST_BYTES:
            await _refuse(send)
            return
        seen = 0

        async def counted() -> _Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > MOST_BYTES:  # of a request that did not say its length
                return {"type": "http.disconnect"}
            return message

        await self._app(scope, counted, send)


async def _refuse(send: _Send) -> None:
    await send({"type": "http.response.start", "status": 413, "headers": []})
    await send({"type": "http.response.body", "body": b"This is more than may be sent."})
