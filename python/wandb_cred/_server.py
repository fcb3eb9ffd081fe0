"""Whom a token is for."""

from __future__ import annotations

from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443}


def is_server(url: str, base_url: str) -> bool:
    """Whether a request goes to the server of `base_url`: scheme, host and port are its."""
    return _origin(url) is not None and _origin(url) == _origin(base_url)


def bearer_of(header: str | bytes | None) -> str | None:
    """The token in an Authorization header."""
    text = header.decode("latin-1") if isinstance(header, bytes) else header or ""
    return text[len("Bearer ") :] if text.startswith("Bearer ") else None


def _origin(url: str) -> tuple[str, str, int] | None:
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS[parts.scheme]
    except (ValueError, KeyError):
        return None
    return (parts.scheme, parts.hostname, port) if parts.hostname else None
