"""Credentials for the W&B SDK in this very process: the variables that `wandb-cred exec` would have set before it."""

from __future__ import annotations

import os
import sys
import threading

from ._daemon import ask_and_hold, unreadable, usual_place
from ._tokens import chosen_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from types import TracebackType
    from typing import Any, Mapping, Sequence

_LOOPBACK = ("127.0.0.1", "localhost")

_lock = threading.Lock()
_active: list[Session] = []
"""The later one wins."""

_before: dict[str, str | None] = {}
"""What the active sessions have hidden."""


class Session:
    """A W&B session of this process: while it is active, ``wandb``, ``weave`` and child processes find credentials that the
    daemon keeps fresh. See :func:`wandb_cred.session`."""

    profile: str
    """The profile in use; of several, their names with ``+`` between them. Known once it has started."""

    base_url: str
    """The W&B server of that profile; of several, of the first. Known once it has started."""

    variables: Mapping[str, str | None]
    """What it sets in the environment; ``None`` is a variable that it removes. Empty while it is not active."""

    def __init__(self, profile: str | Sequence[str] | None = None, *, proxy: bool | None = None) -> None:
        self.variables = {}
        self._profiles = [profile] if isinstance(profile, str) else list(profile or [])
        self._proxy = proxy
        self._pid: int | None = None
        self._connection: socket.socket | None = None

    def start(self) -> Session:
        """Registers this process with the daemon, waits for the first token, and sets the variables. Does nothing if it is
        active already; in a forked child, it registers the child."""
        if self._pid == os.getpid():
            return self
        profiles = self._profiles or chosen_all()
        request: dict[str, object] = {"hold": True}
        if len(profiles) == 1:
            request["profile"] = profiles[0]
        elif profiles:
            request["profiles"] = profiles
        if self._proxy is not None:
            request["proxy"] = self._proxy
        job, connection, place = ask_and_hold("POST", "/v1/jobs", request)
        try:
            variables = _variables(job)
            if place != usual_place()[0]:
                # On demand: who runs inside must be told.
                variables["WANDB_CRED_SOCKET"] = place
        except BaseException:
            connection.close()
            raise
        with _lock:
            if self._connection is not None:
                self._connection.close()
            # A daemon that does not see this process takes the connection for it.
            self._pid, self._connection = os.getpid(), connection
            self.profile, self.base_url = str(job["profile"]), str(job["base_url"])
            self._deactivate()
            self.variables = variables
            _active.append(self)
            for name, value in variables.items():
                _before.setdefault(name, os.environ.get(name))
                _set(name, value)
        _have_the_sdk_read_again()
        return self

    def close(self) -> None:
        """Restores the environment, unless somebody has changed it meanwhile. What has started under the session goes on: the
        daemon serves this process until it ends."""
        with _lock:
            self._pid = None
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            was_active = self in _active
            self._deactivate()
        if was_active:
            _have_the_sdk_read_again()

    def _deactivate(self) -> None:
        if self not in _active:
            return
        last_word = {name: session for session in _active for name in session.variables}
        _active.remove(self)
        for name, value in self.variables.items():
            others = [session.variables[name] for session in _active if name in session.variables]
            if last_word[name] is self and os.environ.get(name) == value:
                _set(name, others[-1] if others else _before[name])
            if not others:
                del _before[name]
        self.variables = {}

    def __enter__(self) -> Session:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = f"profile {self.profile!r} at {self.base_url}" if self.variables else "not active"
        return f"<wandb_cred session: {state}>"


def session(profile: str | Sequence[str] | None = None, *, proxy: bool | None = None) -> Session:
    """W&B credentials for this process, for notebooks and scripts that cannot be started by ``wandb-cred exec``.

        with wandb_cred.session():
            wandb.init(project="demo")

    In a notebook, ``wandb_cred.session().start()`` in one cell does for all later ones, until ``close()`` or the end of the
    kernel. A run that is under way keeps what it began with.

    profile: its name, or several of different servers; by default as in :func:`wandb_cred.token`.
    proxy: whether to use the daemon's loopback proxy instead of the SDK's files; by default as the profile says. It serves W&B
        clients of any version, and code that reads ``WANDB_API_KEY``.

    A daemon is started if none runs. Raises :class:`wandb_cred.Error` if there is no token.
    """
    return Session(profile, proxy=proxy)


def _set(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def _have_the_sdk_read_again() -> None:
    """The SDK reads its environment once in a process: if it has, it would show the credentials of now to the server of before.
    wandb 0.31.0; `teardown` is its own way to begin anew."""
    setup = sys.modules.get("wandb.sdk.wandb_setup")
    done = getattr(setup, "_singleton", None)
    # In a forked child it is the parent's, whose runs must go on.
    if setup is None or done is None or getattr(done, "_pid", None) != os.getpid():
        return
    if getattr(sys.modules.get("wandb"), "run", None) is not None:
        import warnings

        said = "a W&B run is under way, so wandb keeps the credentials that it began with; finish the run first"
        warnings.warn(said, stacklevel=4)
        return
    try:
        setup.teardown()
    except SystemExit:
        # With the exit code of an earlier run that failed.
        pass


def _variables(job: Mapping[str, Any]) -> dict[str, str | None]:
    """Those of src/cli/job.rs; a test holds the two together."""
    if "proxy" in job:
        variables = _of_proxy(job["proxy"])
    elif "identity_token_file" in job and "credentials_file" in job:
        variables = {
            "WANDB_IDENTITY_TOKEN_FILE": job["identity_token_file"],
            "WANDB_CREDENTIALS_FILE": job["credentials_file"],
            "WANDB_BASE_URL": job["base_url"],
            # The SDK refuses an API key beside an identity token file.
            "WANDB_API_KEY": None,
        }
        # Of a session by the proxy that this one is in: weave would send it what it does not take.
        trace, base = os.environ.get("WF_TRACE_SERVER_URL"), os.environ.get("WANDB_BASE_URL")
        if trace and base and trace == f"{base}/traces":
            variables["WF_TRACE_SERVER_URL"] = None
    else:
        raise unreadable("the daemon's answer names neither files nor a proxy")
    variables["WANDB_CRED_PROFILE"] = job["profile"]
    return variables


def _of_proxy(proxy: Mapping[str, Any]) -> dict[str, str | None]:
    variables: dict[str, str | None] = {
        "WANDB_BASE_URL": proxy["url"],
        "WANDB_API_KEY": proxy["key"],
        "WF_TRACE_SERVER_URL": proxy["trace_url"],
        "WANDB_IDENTITY_TOKEN_FILE": None,
        "WANDB_CREDENTIALS_FILE": None,
    }
    if not os.environ.get("WANDB_APP_URL"):
        variables["WANDB_APP_URL"] = proxy["app_url"]
    # Some clients look at one of the two, and some at the other first.
    for name, other in (("NO_PROXY", "no_proxy"), ("no_proxy", "NO_PROXY")):
        before = os.environ.get(name) or os.environ.get(other) or ""
        hosts = [host.strip() for host in before.split(",") if host.strip()]
        variables[name] = ",".join(hosts + [host for host in _LOOPBACK if host not in hosts])
    return variables
