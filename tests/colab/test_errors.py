"""The exceptions of google.colab.errors; each also says how to mend what went wrong."""

from __future__ import annotations

import pickle

import pytest

from colabkit.colab import errors
from colabkit.core.errors import ColabkitError


@pytest.mark.parametrize("name", errors.__all__)
def test_they_take_one_text_like_any_exception(name):
    kind = getattr(errors, name)
    assert str(kind("went wrong")) == "went wrong" and str(kind()) == ""
    with pytest.raises(ColabkitError):
        raise kind("went wrong")


@pytest.mark.parametrize("name", errors.__all__)
def test_the_cure_is_told_where_one_is_known_and_crosses_processes(name):
    error = getattr(errors, name)("went wrong", got=3, expected="4", where="here", fix="try 4")
    assert str(error).startswith("went wrong: got") and str(error).endswith("fix:   try 4")
    assert all(words in str(error) for words in ("got 3", "expected 4", "here"))
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error) and str(back) == str(error)


def test_a_widgets_exception_is_not_caught_with_the_others():
    assert issubclass(errors.AuthorizationError, errors.Error)
    assert issubclass(errors.RuntimeManagementError, errors.Error)
    assert not issubclass(errors.WidgetException, errors.Error)
