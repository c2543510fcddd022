"""Values of one process: made once, not taken over by a fork or a pickle."""

from __future__ import annotations

import os
import pickle
import threading

from colabkit.io.places.http.per_process import PerProcess


class Made:
    """A value that no pickle takes, which knows the process it was made in."""

    def __init__(self):
        self.lock, self.pid = threading.Lock(), os.getpid()


def test_it_is_made_at_its_first_use_and_once():
    value = PerProcess(Made)
    assert value.made() is None and value.drop() is None
    first = value.get()
    assert value.get() is first is value.made()
    assert value.drop() is first and value.made() is None and value.get() is not first


def test_it_is_made_anew_behind_a_pickle():
    value = PerProcess(Made)
    first = value.get()
    copy = pickle.loads(pickle.dumps(value))
    assert copy.made() is None and copy.get() is not first and value.get() is first


def test_it_is_made_anew_in_a_fork_and_the_parents_is_let_go():
    value = PerProcess(Made)
    first = value.get()
    child = os.fork()
    if not child:
        is_own = value.made() is None and value.get().pid == os.getpid() and list(value._made) == [os.getpid()]
        os._exit(0 if is_own else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0 and value.get() is first
