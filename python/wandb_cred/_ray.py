"""The runtime environment with which Ray's workers have credentials."""

from __future__ import annotations

import os

from ._daemon import command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def ray_runtime_env(
    profile: str | None = None, *, proxy: bool = False, python: str | None = None
) -> dict[str, Any]:
    """What ``ray.init(runtime_env=...)`` takes: every worker is started by ``wandb-cred exec``, so ``wandb.init`` works in tasks,
    actors and training functions. The workers of a node share a daemon and its exchange.

    With ``proxy=True`` they have an API key of the daemon's proxy, which is what ``WandbLoggerCallback`` and ``setup_wandb``
    ask for. They run in the driver, or in workers; a driver needs :func:`wandb_cred.session` with ``proxy=True`` as well.

    The command and the Python must be at the same paths on all nodes, and each node needs a configuration or an identity that is
    found by itself. python: the workers' interpreter, if it is not this one.
    """
    import shlex
    import sys

    words = [command(), "exec"]
    if profile:
        words += ["--profile", profile]
    if proxy:
        words.append("--proxy")
    words += ["--", python or sys.executable]
    environment: dict[str, Any] = {"py_executable": " ".join(shlex.quote(word) for word in words)}
    configuration = os.environ.get("WANDB_CRED_CONFIG")
    if configuration:
        environment["env_vars"] = {"WANDB_CRED_CONFIG": configuration}
    return environment
