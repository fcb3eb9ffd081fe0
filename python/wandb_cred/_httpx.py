"""Authentication for `httpx`, for its blocking and its asynchronous client."""

from __future__ import annotations

import httpx

from ._server import bearer_of, is_server
from ._tokens import Token, instead_of, token

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import AsyncGenerator, Generator


class HttpxAuth(httpx.Auth):
    """Sends an access token with every request to the profile's W&B server, and to no other host.

        httpx.Client(auth=wandb_cred.HttpxAuth("work"))
        httpx.AsyncClient(auth=wandb_cred.HttpxAuth())

    When the server answers 401, the token is reported to the daemon and the request is sent once more with the next one. A body
    that is streamed (a generator, an open file) is not sent again: the answer is the 401, and the next request gets the next
    token.

    Raises :class:`wandb_cred.Error` when there is no token.
    """

    def __init__(self, profile: str | None = None) -> None:
        self.profile = profile

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        current = token(self.profile)
        response = yield _with(request, current)
        refused = _refused(response, current)
        if refused is not None:
            current = instead_of(refused, self.profile)
            if current != refused and _is_in_memory(request):
                yield _with(request, current)

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        # httpx needs it for its asynchronous client. The daemon may have to make an exchange, which the loop must not wait for.
        from anyio.to_thread import run_sync

        current = await run_sync(token, self.profile)
        response = yield _with(request, current)
        refused = _refused(response, current)
        if refused is not None:
            current = await run_sync(instead_of, refused, self.profile)
            if current != refused and _is_in_memory(request):
                yield _with(request, current)


def _with(request: httpx.Request, current: Token) -> httpx.Request:
    if is_server(str(request.url), current.base_url):
        request.headers["Authorization"] = f"Bearer {current}"
    return request


def _refused(response: httpx.Response, current: Token) -> str | None:
    """The token that the server did not take. The answer may be that to a redirect."""
    if response.status_code != 401 or not is_server(str(response.request.url), current.base_url):
        return None
    return bearer_of(response.request.headers.get("Authorization"))


def _is_in_memory(request: httpx.Request) -> bool:
    try:
        request.content
    except httpx.RequestNotRead:
        return False
    return True
