"""What can go wrong with a request, as OpenAI's API says it."""

from __future__ import annotations

__all__ = ["ApiError", "bad_request", "closing", "not_found", "queue_full"]


class ApiError(Exception):
    """An answer with an HTTP status of 400 or more; its body has OpenAI's shape."""

    def __init__(
        self,
        status: int,
        message: str,
        kind: str = "invalid_request_error",
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        message = message.encode("utf-8", "replace").decode("utf-8")  # it may quote half of a surrogate pair
        super().__init__(message)
        self.status, self.message, self.kind, self.param, self.code = status, message, kind, param, code
        self.headers = headers

    def body(self) -> dict:
        """What is sent as JSON."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": error}


def bad_request(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """400: the request has to be written otherwise."""
    return ApiError(400, message, param=param, code=code)


def not_found(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """404: there is no such model or path."""
    return ApiError(404, message, param=param, code=code)


def queue_full(waiting: int) -> ApiError:
    """429: later it may work."""
    message = f"the server is busy: {waiting} answers are being written or wait for that; try again later"
    return ApiError(429, message, "rate_limit_error", code="rate_limit_exceeded", headers={"Retry-After": "1"})


def closing() -> ApiError:
    """503: it was asked to end."""
    return ApiError(503, "the server is shutting down", "server_error", code="shutting_down")
