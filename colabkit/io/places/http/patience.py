"""Patience: back-off with full jitter, waits that a server orders, and a deadline since the last progress."""

from __future__ import annotations

import email.utils
import random
import re
import time
from collections.abc import Mapping

from colabkit.core.errors import DataError

_NONE_LEFT = re.compile(r";\s*r\s*=\s*0\s*;\s*t\s*=\s*(\d+)")  # requests left: 0; seconds until there are more


class Unreachable(DataError):
    """Nothing came for as long as we were ready to wait."""


class Patience:
    """The tries of one operation. `progressed` starts the deadline anew; `wait` sleeps until the next try is due.

    Full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """

    def __init__(self, deadline_seconds: float, *, base_seconds: float = 0.1, cap_seconds: float = 20.0):
        self.deadline_seconds, self.base_seconds, self.cap_seconds = deadline_seconds, base_seconds, cap_seconds
        self.num_tries, self._failed_in_a_row, self._moved = 0, 0, False
        self._since = time.monotonic()

    def progressed(self) -> None:
        self._since, self._failed_in_a_row, self._moved = time.monotonic(), 0, True

    @property
    def left_seconds(self) -> float:
        return self._since + self.deadline_seconds - time.monotonic()

    def wait(self, cause: str, name: str, ordered_seconds: float | None = None) -> None:
        """Sleep before the next try. Raises: Unreachable when the time is over, or would be before a try may be made.

        A wait that the server orders is waited out even past the deadline, unless it is longer than the whole deadline:
        to try earlier would be to be refused again.
        """
        self.num_tries += 1
        pause = self._pause_seconds()
        if ordered_seconds is not None:
            too_long = ordered_seconds > self.deadline_seconds
            # threads shall not come back all at once
            pause = ordered_seconds + min(pause, max(1.0, 0.1 * ordered_seconds))
        else:
            too_long = False
            pause = min(pause, max(self.left_seconds, 0.0))
        if too_long or self.left_seconds <= 0:
            asked = f"; the server asks to wait {ordered_seconds:.0f} s" if too_long else ""
            raise Unreachable(
                "Cannot read: nothing came from the other side",
                where=name,
                got=f"{self.num_tries} tries without progress in "
                f"{time.monotonic() - self._since:.0f} s, the last ended with: {cause}{asked}",
                expected=f"some bytes within {self.deadline_seconds:.0f} s",
                fix="check the network and that the service is up, then run the same command again: "
                "it continues where it stood",
            )
        self._moved = False
        self._failed_in_a_row += 1
        if pause:
            time.sleep(pause)

    def _pause_seconds(self) -> float:
        if self._moved:
            return 0.0  # a transfer that broke on its way is taken up again at once
        longest = self.base_seconds * 2 ** min(self._failed_in_a_row, 30)
        return random.uniform(0.0, min(self.cap_seconds, longest))


def ordered_wait_seconds(headers: Mapping[str, str]) -> float | None:
    """Return how long a refused client is told to wait, by Retry-After (seconds or a date) or RateLimit, or None.

    RFC 9110 10.2.3; the Hub says it as `RateLimit: "resolvers";r=0;t=55` (draft-ietf-httpapi-ratelimit-headers).
    """
    text = (headers.get("Retry-After") or "").strip()
    if text.isdigit():
        return float(text)
    if text:
        try:
            return max(0.0, _seconds(text) - (_seconds(headers["Date"]) if "Date" in headers else time.time()))
        except ValueError:
            return None
    reset = _NONE_LEFT.search(headers.get("RateLimit") or "")
    return float(reset.group(1)) if reset else None


def _seconds(date: str) -> float:
    return email.utils.parsedate_to_datetime(date).timestamp()
