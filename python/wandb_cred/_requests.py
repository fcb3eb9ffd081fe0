"""Authentication for `requests`."""

from __future__ import annotations

from ._server import bearer_of, is_server
from ._tokens import instead_of, token

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from requests import PreparedRequest, Response


class RequestsAuth:
    """Sends an access token with every request to the profile's W&B server, and to no other host.

        requests.post(f"{base}/graphql", json=query, auth=wandb_cred.RequestsAuth())
        session.auth = wandb_cred.RequestsAuth("work")

    When the server answers 401, the token is reported to the daemon and the request is sent once more with the next one. A body
    that cannot be read again (a generator, a pipe) is not sent again: the answer is the 401, and the next request gets the
    next token.

    Raises :class:`wandb_cred.Error` when there is no token.
    """

    def __init__(self, profile: str | None = None) -> None:
        self.profile = profile

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        current = token(self.profile)
        if is_server(request.url or "", current.base_url):
            request.headers["Authorization"] = f"Bearer {current}"
            again = _Refused(self.profile, current.base_url, _position(request.body))
            request.register_hook("response", again)  # type: ignore[no-untyped-call]
        return request


class _Refused:
    """Looks at the answers to one request and those that it is redirected to."""

    def __init__(self, profile: str | None, base_url: str, position: int | None) -> None:
        self.profile = profile
        self.base_url = base_url
        self.position = position

    def __call__(self, response: Response, **how: Any) -> Response:
        sent = response.request
        refused = bearer_of(sent.headers.get("Authorization"))
        if response.status_code != 401 or refused is None or not is_server(sent.url or "", self.base_url):
            return response
        current = instead_of(refused, self.profile)
        if current == refused or not self._rewind(sent.body):
            return response
        # As requests' own digest authentication does it: read to the end, so that the connection can be used again.
        response.content
        response.close()
        again = sent.copy()
        _take_cookies(again, response)
        again.headers["Authorization"] = f"Bearer {current}"
        answer: Response = response.connection.send(again, **how)
        answer.history.append(response)
        answer.request = again
        return answer

    def _rewind(self, body: object) -> bool:
        if body is None or isinstance(body, (bytes, bytearray, str)):
            return True
        if self.position is None:
            return False
        try:
            body.seek(self.position)  # type: ignore[attr-defined]
        except (AttributeError, OSError, ValueError):
            return False
        return True


def _position(body: object) -> int | None:
    """Where a file begins to be sent."""
    try:
        return body.tell()  # type: ignore[attr-defined, no-any-return]
    except (AttributeError, OSError, ValueError):
        return None


def _take_cookies(again: PreparedRequest, response: Response) -> None:
    from requests.cookies import extract_cookies_to_jar

    jar = again._cookies  # type: ignore[attr-defined]
    extract_cookies_to_jar(jar, response.request, response.raw)  # type: ignore[no-untyped-call]
    again.prepare_cookies(jar)
