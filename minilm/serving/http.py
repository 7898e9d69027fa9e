"""Bodies, answers and clients that hang up: what the endpoints have to do with HTTP."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Awaitable, Collection
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response

from .errors import ApiError

__all__ = ["check_access", "json_response", "read_body", "unless_disconnected"]

MOST_BYTES = 4 << 20  # of a request's body

T = TypeVar("T")


def json_response(value: dict, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A response of JSON in UTF-8."""
    body = json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    return Response(body, status, headers, media_type="application/json")


async def read_body(request: Request) -> bytes:
    """The body; 415 unless it is called JSON, which a page of another site can't send, and 413 if it is too long."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, f"Content-Type is {kind or 'missing'}; send application/json")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise ApiError(413, f"the body is longer than {MOST_BYTES} bytes", code="request_too_large")
    return bytes(body)


def check_access(request: Request, key: str | None, hosts: Collection[str] | None) -> None:
    """401 unless the request has the key, where there is one; how long that takes tells nothing of it.

    403 unless it was meant for one of `hosts`, where they are given: a page of another site can have its own name point
    to this machine, but can't hide that name.
    """
    if hosts is not None and request.url.hostname not in hosts:
        raise ApiError(
            403, f"the Host is {request.url.hostname}; this server is {' or '.join(hosts)}", code="wrong_host"
        )
    if key is None:
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    # Header values are bytes, which HTTP libraries show as Latin-1.
    same = hmac.compare_digest(given.strip().encode("latin-1"), key.encode("utf-8", "surrogateescape"))
    if scheme.lower() != "bearer" or not same:
        message = "the API key is missing or wrong; send it as Authorization: Bearer KEY"
        raise ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


async def unless_disconnected(request: Request, work: Awaitable[T]) -> T | None:
    """What `work` comes to, None if the client hangs up before; it is cancelled then."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        return await task if task.done() else None
    finally:
        task.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
