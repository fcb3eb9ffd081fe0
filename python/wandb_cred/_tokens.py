"""Tokens from the daemon's memory."""

from __future__ import annotations

import os

from ._daemon import ask, unreadable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime
    from typing import Any

_WAIT = 60
_MARGIN = 5
_RENEWAL_WAIT = 15
"""For a forced renewal, which may come 5 s after the last one at the earliest."""


class Token(str):
    """A token: the text itself, and what the daemon says of it. Its ``repr()`` does not show it, so that it does not end up
    in a notebook by being the last line of a cell."""

    profile: str
    """The profile whose token it is."""

    base_url: str
    """The W&B server that takes it; empty for an identity token."""

    expires_in: int
    """How many seconds of life it had when the daemon answered."""

    _expires_at: str

    def __repr__(self) -> str:
        return f"<token of profile {self.profile!r}, good until {self._expires_at}>"

    @property
    def expires_at(self) -> datetime:
        """When it expires, in UTC."""
        from datetime import datetime

        # Python 3.10 and earlier do not read the Z.
        return datetime.fromisoformat(self._expires_at.replace("Z", "+00:00"))


def token(profile: str | None = None, min_ttl: float | None = None, *, wait: float | None = None) -> Token:
    """A W&B access token that is good now: ``Authorization: Bearer`` takes it, an API key it is not.

    It comes from the daemon's memory, in a millisecond; the first one may have to wait for the exchange.

    profile: its name; as in the command, by default that of ``WANDB_CRED_PROFILE``, else the daemon's default.
    min_ttl: at least that many seconds of life.
    wait: how many seconds to wait at most if none is ready; the daemon's limit of 30 by default.

    Raises :class:`wandb_cred.Error`.
    """
    target = _target("/v1/token", profile, min_ttl, wait)
    answer = ask("GET", target, timeout=(_WAIT if wait is None else wait) + _MARGIN)
    return _token("access_token", answer)


def identity_hook(profile: str | None = None, min_ttl: float | None = None) -> Token:
    """The identity token (the JWT of your identity provider), fresh: for code that takes a callable and calls it whenever it
    needs one.

        client = Client(identity_token=wandb_cred.identity_hook)
        client = Client(identity_token=functools.partial(wandb_cred.identity_hook, "work"))

    The daemon hands it out only where the profile has ``serve-identity-token = true``; who has it can exchange it elsewhere.

    Raises :class:`wandb_cred.Error`.
    """
    answer = ask("GET", _target("/v1/identity-token", profile, min_ttl, None), timeout=_WAIT + _MARGIN)
    return _token("identity_token", answer)


def instead_of(refused: str, profile: str | None) -> Token:
    """Reports a token that a server answered 401 to, and gives the next one; the same one if there is no other."""
    from hashlib import sha256

    digest = sha256(refused.encode()).hexdigest()
    ask("POST", "/v1/rejected", {"profile": chosen(profile), "token_sha256": digest})
    target = _target("/v1/token", profile, None, _RENEWAL_WAIT)
    target += f"{'&' if '?' in target else '?'}newer_than={digest}"
    answer = ask("GET", target, timeout=_RENEWAL_WAIT + _WAIT + _MARGIN)
    return _token("access_token", answer)


def chosen(profile: str | None) -> str | None:
    """The profile that is meant: that of the job that this process is in, if nobody names one."""
    return profile or next(iter(chosen_all()), None)


def chosen_all() -> list[str]:
    """The profiles that ``WANDB_CRED_PROFILE`` names, unless `exec` set it for a job that has ended: by now the configuration
    may be another one (src/cli/profile.rs)."""
    named = os.environ.get("WANDB_CRED_PROFILE")
    if not named:
        return []
    identity = os.environ.get("WANDB_IDENTITY_TOKEN_FILE", "")
    folder, file = os.path.split(identity)
    ours = (
        file == "identity-token"
        and os.path.basename(os.path.dirname(folder)) == "profiles"
        and os.environ.get("WANDB_CREDENTIALS_FILE") == os.path.join(folder, "credentials.json")
    )
    if ours and os.path.basename(folder) == named and not os.path.exists(identity):
        return []
    return named.split("+")


def _target(path: str, profile: str | None, min_ttl: float | None, wait: float | None) -> str:
    values = [
        ("profile", _quote(chosen(profile) or "")),
        # Rounded up: at least what was asked for.
        ("min_ttl", "" if min_ttl is None else str(-int(-min_ttl // 1))),
        ("wait", "" if wait is None else str(-int(-wait // 1))),
    ]
    query = "&".join(f"{name}={value}" for name, value in values if value)
    return f"{path}?{query}" if query else path


def _quote(text: str) -> str:
    """Percent-encodes what is not unreserved (RFC 3986); urllib.parse would cost a third of the time to a token."""
    plain = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
    return "".join(chr(byte) if byte in plain else f"%{byte:02X}" for byte in text.encode())


def _token(name: str, answer: dict[str, Any]) -> Token:
    try:
        token = Token(answer[name])
        token.profile = answer["profile"]
        token.base_url = answer.get("base_url", "")
        token.expires_in = answer["expires_in"]
        token._expires_at = answer["expires_at"]
    except KeyError as error:
        raise unreadable(f"the daemon's answer has no {error}") from None
    return token
