"""The quota of a Hub: so many requests a window of time, and a refusal that says when the next one begins."""

from __future__ import annotations

import math
import threading
import time

from colabkit.loopback.messages import Fields


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
