"""N-gram models in ARPA text that other tools wrote, whole and damaged."""

from __future__ import annotations

import math

import pytest

from colabkit.core.errors import DataError
from colabkit.pipelines.asr.evaluate.language_model import NgramModel

FOREIGN = """made by another tool

\\data\\
ngram 1=4
ngram 2=2

\\1-grams:
-99 <s> -0.30103
-0.69897\t</s>
-0.30103\tnew\t-0.1
-0.5 york

\\2-grams:
-0.1 new york
-0.2\t<s> new

\\end\\
"""


def test_arpa_of_other_tools_is_read_and_backs_off(tmp_path):
    (tmp_path / "f.arpa").write_text(FOREIGN)
    model = NgramModel.load(tmp_path / "f.arpa")
    log10 = lambda x: x / math.log(10)  # noqa: E731
    first, state = model.score(model.begin(), "new")
    second, state = model.score(state, "york")
    assert (log10(first), log10(second)) == pytest.approx((-0.2, -0.1))
    assert log10(model.end(state)) == pytest.approx(-0.69897)  # york has no weight: 0
    assert log10(model.score(model.begin(), "york")[0]) == pytest.approx(-0.30103 - 0.5)
    assert log10(model.score((), "elsewhere")[0]) < -90


@pytest.mark.parametrize(
    "broken",
    [
        FOREIGN.replace("\\end\\", ""),
        FOREIGN.replace("ngram 2=2", "ngram 2=3"),
        FOREIGN.replace("-0.1 new york", "-0.1 new"),
        FOREIGN.replace("-0.1 new york", "x new york"),
        FOREIGN.replace("new york", "old york"),
        "",
        "\\data\\\n\\end\\\n",
        FOREIGN.replace("-0.5 york", "-0.5 new"),
    ],
)
def test_damaged_arpa_files_are_refused_with_their_name(tmp_path, broken):
    (tmp_path / "b.arpa").write_text(broken)
    with pytest.raises(DataError) as caught:
        NgramModel.load(tmp_path / "b.arpa")
    assert "b.arpa" in str(caught.value)
    with pytest.raises(DataError):
        NgramModel.load(tmp_path / "missing.arpa")
