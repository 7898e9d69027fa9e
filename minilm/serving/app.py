"""The application: paths to endpoints, and every error in OpenAI's shape."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from .completions import TextService
from .embeddings import EmbeddingService
from .errors import ApiError, bad_request, not_found
from .fields import read_json
from .http import check_access, json_response, read_body
from .protocol import chat_request, completion_request, embedding_request
from .responses import model_entry, model_list

__all__ = ["create_app"]


def create_app(
    service: TextService | EmbeddingService, api_key: str | None = None, hosts: Collection[str] | None = None
) -> Starlette:
    """The ASGI application of one model, which either writes or embeds; without a key everybody may ask.

    `hosts` are the names by which clients may call it, None any.

    GET /health needs none: it says what is served, and how many answers are computed or wait.
    """
    created = int(time.time())

    async def health(request: Request) -> Response:
        load = service.engine.load if isinstance(service, TextService) else service.load
        return json_response({"status": "ok", "model": service.name, "load": load})

    async def models(request: Request) -> Response:
        check_access(request, api_key, hosts)
        return json_response(model_list(service.name, created))

    async def model(request: Request) -> Response:
        check_access(request, api_key, hosts)
        _check_model(request.path_params["name"])
        return json_response(model_entry(service.name, created))

    def endpoint(parse: Callable, answer: Callable | None, refusal: str) -> Callable:
        async def handle(request: Request) -> Response:
            check_access(request, api_key, hosts)
            asked = parse(read_json(await read_body(request)))
            _check_model(asked.model)
            if answer is None:
                raise bad_request(refusal, "model", "model_not_supported")
            return await answer(request, asked)

        return handle

    def _check_model(name: str) -> None:
        if name != service.name:
            raise not_found(f"there is no model {name}; this server has {service.name}", "model", "model_not_found")

    complete, chat = getattr(service, "complete", None), getattr(service, "chat", None)
    embed = getattr(service, "embed", None)
    writes = f"{service.name} is an encoder, which writes no text: POST /v1/embeddings"
    embeds = f"{service.name} writes text; vectors come from an encoder's folder, served by itself"
    post = {
        "/v1/completions": endpoint(completion_request, complete, writes),
        "/v1/chat/completions": endpoint(chat_request, chat, writes),
        "/v1/embeddings": endpoint(embedding_request, embed, embeds),
    }
    routes = [
        Route("/health", health, methods=["GET"]),
        Route("/v1/models", models, methods=["GET"]),
        Route("/v1/models/{name:path}", model, methods=["GET"]),
        *(Route(path, handle, methods=["POST"]) for path, handle in post.items()),
    ]
    handlers = {ApiError: _api_error, HTTPException: _http_error, ClientDisconnect: _gone, Exception: _failed}
    return Starlette(routes=routes, exception_handlers=handlers)


async def _api_error(_: Request, error: ApiError) -> Response:
    return json_response(error.body(), error.status, error.headers)


async def _http_error(request: Request, error: HTTPException) -> Response:
    what = {404: f"there is no {request.url.path}", 405: f"{request.url.path} does not take {request.method}"}
    message = what.get(error.status_code, error.detail)
    return json_response(ApiError(error.status_code, message).body(), error.status_code, dict(error.headers or {}))


async def _gone(_: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=499)  # nobody reads it


async def _failed(_: Request, error: Exception) -> Response:
    return json_response(ApiError(500, "the server failed; its log says why", "server_error").body(), 500)
