"""Refusals that are also the built-in exceptions google.colab raises."""

from __future__ import annotations

import pickle

import pytest

from colabkit.colab import refusals
from colabkit.colab.errors import Error
from colabkit.core.errors import EXIT_FAILED, EXIT_USAGE, UsageError

BUILT_IN = [  # the refusal, what google.colab raises there, what it is of ours, its exit code
    (refusals.WrongValueError, ValueError, UsageError, EXIT_USAGE),
    (refusals.NoSuchFileError, FileNotFoundError, UsageError, EXIT_USAGE),
    (refusals.NotAFileError, IsADirectoryError, UsageError, EXIT_USAGE),
    (refusals.NotUploadedError, ValueError, Error, EXIT_FAILED),
    (refusals.MountError, ValueError, Error, EXIT_FAILED),
    (refusals.UnsupportedError, NotImplementedError, Error, EXIT_FAILED),
]


@pytest.mark.parametrize("kind, built_in, ours, code", BUILT_IN, ids=lambda value: getattr(value, "__name__", value))
def test_each_is_caught_as_both_and_tells_its_cure(kind, built_in, ours, code):
    for caught in (built_in, ours):
        with pytest.raises(caught) as error:
            raise kind("Cannot do it", got="x", fix="do that")
    # OSError has a text of its own, made of an error number: it must not come before ours.
    assert str(error.value).startswith("Cannot do it: got 'x'.") and str(error.value).endswith("fix:   do that")
    assert error.value.exit_code == code
    back = pickle.loads(pickle.dumps(error.value))
    assert type(back) is kind and str(back) == str(error.value)
