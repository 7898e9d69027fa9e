"""The server: an application on a socket until a signal comes, and then a quiet end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator

import uvicorn
from starlette.applications import Starlette

__all__ = ["Server"]

_SIGNALS = signal.SIGINT, signal.SIGTERM


class Server(uvicorn.Server):
    """Serves `app` at `host` and `port` (0: a free one) until SIGINT, SIGTERM or `stop`.

    Then no connection is taken up any more and `closing(grace)` is called, which has to bring the answers on their way
    to an end within `grace` seconds; a second signal ends at once. `started(address)` is called with the address.
    Raises OSError for an address that can't be had.
    """

    def __init__(
        self,
        app: Starlette,
        host: str,
        port: int,
        started: Callable[[str], None],
        closing: Callable[[float], None],
        grace: float = 5.0,
    ) -> None:
        # A client that does not read its answer is not waited for much longer than it takes to write one.
        super().__init__(
            uvicorn.Config(
                _quiet(app), host=host, port=port, http="h11", ws="none", lifespan="off", loop="asyncio",
                log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=int(grace) + 2,
            )
        )  # fmt: skip
        self._loop: asyncio.AbstractEventLoop
        self.announce, self.closing, self.grace = started, closing, grace

    def listen(self) -> None:
        """Serves until the end."""
        family, _, _, _, address = socket.getaddrinfo(
            self.config.host, self.config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.create_server(address[:2], family=family, backlog=self.config.backlog) as listener:
            asyncio.run(self.serve([listener]))

    def stop(self) -> None:
        """Ends as a signal does; may be called from any thread."""
        with contextlib.suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._stop)

    async def startup(self, sockets=None) -> None:
        """As uvicorn's, and the address is told."""
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        host, port = sockets[0].getsockname()[:2]
        self.announce(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, which ends the process by the signal once more after a quiet end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, lambda *_: self.stop()) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self) -> None:
        if self.should_exit:  # the second time: answers end now, and who does not read them is left
            self.closing(0.0)
            self._loop.call_later(1.0, setattr, self, "force_exit", True)
        else:
            self.should_exit = True
            self.closing(self.grace)


def _quiet(app: Callable) -> Callable:
    """The application, without a traceback for a client that does not read its answer when the server has to end."""

    async def run(scope, receive, send) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await app(scope, receive, send)

    return run
