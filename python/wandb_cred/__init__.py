"""Weights & Biases credentials that stay fresh, for Python.

    import wandb_cred

    wandb_cred.token()                       # an access token that is good now
    with wandb_cred.session():               # wandb and weave in this process use the daemon's credentials
        wandb.init(project="demo")

All of it asks wandb-credd, the daemon of this user, and starts one where none runs. Every failure is a
:class:`wandb_cred.Error` with the daemon's sentence and the command to type next.
"""

from __future__ import annotations

from ._error import Error
from ._tokens import Token, identity_hook, token

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._httpx import HttpxAuth
    from ._ray import ray_runtime_env
    from ._requests import RequestsAuth
    from ._session import Session, session

__all__ = [
    "Error",
    "HttpxAuth",
    "RequestsAuth",
    "Session",
    "Token",
    "identity_hook",
    "ray_runtime_env",
    "session",
    "token",
]

# Imported when first used: a program that wants a token pays for nothing else.
_LATER = {
    "HttpxAuth": "_httpx",
    "RequestsAuth": "_requests",
    "Session": "_session",
    "ray_runtime_env": "_ray",
    "session": "_session",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{_LATER[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
