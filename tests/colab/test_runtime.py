"""google.colab.runtime: give the machine back."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from colabkit.colab import runtime
from colabkit.colab.errors import RuntimeManagementError


def on_a_vm(monkeypatch, unassign) -> None:
    monkeypatch.setattr(runtime, "real", lambda name, here: SimpleNamespace(unassign=unassign))


def test_a_machine_of_ones_own_is_not_given_back():
    with pytest.raises(RuntimeManagementError, match="nothing to give back") as caught:
        runtime.unassign()
    assert "fix:" in str(caught.value)


def test_a_vm_is_given_back(monkeypatch):
    given_back = []
    on_a_vm(monkeypatch, lambda: given_back.append(True))
    assert runtime.unassign() is None and given_back == [True]


@pytest.mark.parametrize("name", ["RuntimeManagementError", "ConnectionError"])
def test_a_vm_that_stays_is_told_in_our_words_and_other_faults_as_they_are(monkeypatch, name):
    error = type(name, (Exception,), {})("no answer")

    def refuse() -> None:
        raise error

    on_a_vm(monkeypatch, refuse)
    with pytest.raises(Exception, match="no answer") as caught:
        runtime.unassign()
    if name == "RuntimeManagementError":
        assert isinstance(caught.value, RuntimeManagementError) and caught.value.__cause__ is error
        assert "Disconnect and delete runtime" in str(caught.value)
    else:
        assert caught.value is error
