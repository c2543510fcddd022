"""Whatever goes wrong in one thread ends them all, and is raised where the work was asked for."""

from __future__ import annotations

import queue
import threading
import time

import pytest

from colabkit.core.errors import UsageError
from colabkit.pipelines.dataset.encode.crew import Crew, HaltedError


def test_the_first_error_ends_all_and_is_raised():
    ended = []
    with Crew() as crew:

        def wait():
            try:
                crew.get(queue.Queue())
            except HaltedError:
                ended.append("waiting")
                raise

        def fail():
            time.sleep(0.05)
            raise UsageError("keys have expired", fix="renew them")

        crew.start("wait", wait)
        crew.when_halted(lambda: ended.append("told"))
        crew.submit(crew.pool("work", 2), fail)
        full: queue.Queue = queue.Queue(1)
        full.put(1)
        with pytest.raises(HaltedError):
            crew.put(full, 2)
    with pytest.raises(UsageError, match="keys have expired"):
        crew.check()
    assert "waiting" in ended and "told" in ended and threading.active_count() < 20


def test_what_is_given_after_the_end_is_refused_quietly():
    crew = Crew()
    pool = crew.pool("work", 1)
    with crew:
        assert crew.result(crew.future(pool, lambda: 3)) == 3
    crew.submit(pool, lambda: 1)
    with pytest.raises(HaltedError):
        crew.future(pool, lambda: 1)
    crew.check()


def test_a_timeout_of_the_work_itself_is_its_error():
    def late():
        raise TimeoutError("of the network")

    with Crew() as crew:
        future = crew.future(crew.pool("work", 1), late)
        with pytest.raises(TimeoutError, match="of the network"):
            crew.result(future)
