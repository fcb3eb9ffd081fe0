"""The one error, which is the daemon's problem document (RFC 9457) or, where no daemon answers, what the command says."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Error(Exception):
    """Why there is no token or session.

    ``str()`` of it is for people: what happened, and the command to type next.
    """

    type: str
    """For programs: ``needs-login``, ``upstream-unavailable``, ``no-such-profile`` and the others of the socket's API;
    ``no-daemon`` if no daemon answers and none could be started, ``no-answer`` if it did not answer in time."""

    title: str
    """What is wrong in general."""

    detail: str
    """What happened here, and to which profile."""

    next: str | None
    """The command to type next, if one helps."""

    profile: str | None
    """Whose problem it is."""

    retry_after: int | None
    """Seconds until another attempt makes sense."""

    reason: dict[str, Any]
    """Why, as data: ``code`` names it, the other members depend on it. Empty if nothing more is known."""

    def __init__(self, problem: dict[str, Any]) -> None:
        # The document is the only argument, so that the error survives being pickled (multiprocessing, Ray).
        super().__init__(problem)
        self.type = str(problem.get("type", "unknown"))
        self.title = str(problem.get("title", ""))
        self.detail = str(problem.get("detail") or self.title)
        self.next = problem.get("next")
        self.profile = problem.get("profile")
        self.retry_after = problem.get("retry_after")
        self.reason = problem.get("reason") or {}

    def __str__(self) -> str:
        text = self.detail
        if self.retry_after:
            text += f" (next attempt in {self.retry_after} s)"
        if self.next:
            text += f"\n  next: {self.next}"
        return text
