"""A Hub with quotas: so many requests a window of time, and a refusal that says when the next one begins."""

from __future__ import annotations

import math
import threading
import time

from colabkit.loopback.hub import HubServer
from colabkit.loopback.hub_repos import Commit, HubRepo
from colabkit.loopback.hub_writes import refuse
from colabkit.loopback.messages import Answer, Fields, Request


class Quota:
    """Allow `count` requests in each window of `seconds`; `refused` counts those that were too many.

    with_retry_after: say it by Retry-After too; the Hub says it by RateLimit alone
    (draft-ietf-httpapi-ratelimit-headers).
    """

    def __init__(self, count: int, seconds: float, *, name: str = "api", with_retry_after: bool = False):
        self.count, self.seconds, self.name, self.with_retry_after = count, seconds, name, with_retry_after
        self.refused, self._left, self._until = 0, 0, 0.0
        self._lock = threading.Lock()

    def refuse(self) -> Fields | None:
        """Take one request of the window: return None, or the fields of a refusal where none is left."""
        with self._lock:
            now = time.monotonic()
            if now >= self._until:
                self._left, self._until = self.count, now + self.seconds
            if self._left:
                self._left -= 1
                return None
            self.refused += 1
            wait = str(math.ceil(self._until - now))
            fields = {
                "RateLimit": f'"{self.name}";r=0;t={wait}',
                "RateLimit-Policy": f'"fixed window";"{self.name}";q={self.count};w={math.ceil(self.seconds)}',
            }
            return fields | ({"Retry-After": wait} if self.with_retry_after else {})


class BusyHub(HubServer):
    """A Hub whose quotas are of one account on the real one, of everybody here; they may be set while it runs."""

    api_quota: Quota | None = None
    commit_quota: Quota | None = None

    def answer(self, request: Request) -> Answer:
        """Refuse what is too much for the API, or answer."""
        if self.api_quota is not None and request.path.startswith("/api/"):
            if (fields := self.api_quota.refuse()) is not None:
                return refuse(429, "", "We had to rate limit you: too many requests", fields)
        return super().answer(request)

    def _commit(self, request: Request, repo: HubRepo, commit: Commit, path: str) -> Answer:
        if self.commit_quota is not None and (fields := self.commit_quota.refuse()) is not None:
            return refuse(429, "", "You have exceeded the rate limit for repository commits", fields)
        return super()._commit(request, repo, commit, path)
