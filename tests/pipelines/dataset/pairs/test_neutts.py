"""Rows of NeuTTS: the format, codes in their order, masks, lengths by a real tokeniser's rules, right-to-left texts."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from colabkit.core.errors import DataError
from colabkit.pipelines.dataset.pairs.neutts import FineTuningSettings, chat_text, speech_tokens, write_fine_tuning_set
from colabkit.pipelines.dataset.pairs.pairs import PairSettings
from colabkit.pipelines.dataset.publish.table import Rows
from tests.pipelines.dataset.publish.test_layout import CODEC, make_rows

ANY = PairSettings(shortest_reference_seconds=0.0)


def read(made) -> list[dict]:
    import pyarrow.parquet as pq

    rows = []
    for path in made.files:
        rows += (
            pq.read_table(path).to_pylist()
            if path.suffix == ".parquet"
            else [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        )
    return rows


def test_the_text_a_model_is_trained_with():
    assert chat_text("həlˈoʊ", [3, 65535]) == (
        "user: Convert the text to speech:<|TEXT_PROMPT_START|>həlˈoʊ<|TEXT_PROMPT_END|>\n"
        "assistant:<|SPEECH_GENERATION_START|><|speech_3|><|speech_65535|><|SPEECH_GENERATION_END|>"
    )


def test_codes_of_several_books_become_one_series_and_differ():
    codes = np.array([[1, 2, 3], [1, 2, 3]])
    assert speech_tokens(codes, 100).tolist() == [1, 101, 2, 102, 3, 103]
    assert speech_tokens(codes[:1], 100).tolist() == [1, 2, 3]


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_pairs_hold_both_texts_and_both_codes(tmp_path, kind):
    texts = ["مرحبا، كيف حالك؟", "نعم؛ شكرا.", "שלום, מה שלומך?", "سلام! خوبی؟"]
    rows = make_rows(40, speakers=5, text=[texts[i % 4] for i in range(40)])
    settings = FineTuningSettings(pairs=ANY, format=kind, language="ar")
    made = write_fine_tuning_set(rows, tmp_path / "a", settings)
    again = write_fine_tuning_set(rows, tmp_path / "b", settings)
    sums = [[hashlib.sha256(p.read_bytes()).hexdigest() for p in m.files] for m in (made, again)]
    assert sums[0] == sums[1] and made.num_rows == 40 == len(read(made)) and not made.left_out
    keys = rows.table["key"].to_pylist()
    codes = dict(zip(keys, rows.table["codes"].to_pylist(), strict=True))
    said = dict(zip(keys, rows.table["text"].to_pylist(), strict=True))
    for row in read(made):
        target, reference = row["__key__"].split("+")
        assert row["codes"] == codes[reference] + codes[target] and row["num_masked_codes"] == len(codes[reference])
        assert row["text"] == f"{said[reference]} {said[target]}" and row["reference_key"] == reference != target
        assert row["phones"] and row["phones"] != row["text"]
        whole = chat_text(row["phones"], row["codes"])
        # Bytes of text and one token for each code and each mark: no byte-level tokeniser makes more of it.
        assert row["num_tokens"] <= 2048 and whole.endswith("<|SPEECH_GENERATION_END|>")
        assert row["num_tokens"] >= len(row["codes"]) + len(row["phones"].encode()) + 4
    marks = "".join(row["phones"] for row in read(made))
    assert {"؟", "،", "؛", "."} <= set(marks)


def test_single_rows_are_in_the_original_format(tmp_path):
    rows = make_rows(10)
    made = write_fine_tuning_set(rows, tmp_path, FineTuningSettings(paired=False, phonemes=False))
    found = read(made)
    assert [row["__key__"] for row in found] == rows.table["key"].to_pylist()
    assert (
        found[3]["codes"] == rows.table["codes"][3].as_py()
        and found[3]["text"] == "text 3"
        and "phones" not in found[3]
    )
    assert all(row["num_masked_codes"] == 0 for row in found)


def test_what_falls_out_is_counted_by_reason(tmp_path):
    texts = ["good text", "", "see www.example.org", "12", "♫ song", "fine"] * 10
    rows = make_rows(60, speakers=3, text=texts)
    made = write_fine_tuning_set(
        rows,
        tmp_path,
        FineTuningSettings(pairs=PairSettings(shortest_reference_seconds=0, most_tokens=500), phonemes=False),
    )
    assert made.left_out["its text: no text"] == 10 and made.left_out["its text: an address of the internet"] == 10
    assert (
        made.left_out["its text: too few letters"] == 10 and made.left_out["its text: symbols that nobody speaks"] == 10
    )
    assert made.num_rows + sum(made.left_out.values()) == 60 and max(row["num_tokens"] for row in read(made)) <= 500


def test_a_tokeniser_of_ones_own_counts(tmp_path):
    rows = make_rows(20, speakers=2)
    by_words = FineTuningSettings(pairs=ANY, phonemes=False, count_tokens=lambda text: len(text.split()))
    by_bytes = FineTuningSettings(pairs=ANY, phonemes=False)
    tokens = [write_fine_tuning_set(rows, tmp_path / str(i), s).num_tokens for i, s in enumerate((by_words, by_bytes))]
    assert tokens[0] < tokens[1]


def test_files_of_an_earlier_call_are_replaced_and_nothing_left_is_told(tmp_path):
    (tmp_path / "train-00001-of-00002.parquet").write_bytes(b"old")
    rows = make_rows(10, speakers=2)
    write_fine_tuning_set(rows, tmp_path, FineTuningSettings(pairs=ANY, phonemes=False))
    assert [p.name for p in tmp_path.iterdir()] == ["train-00000-of-00001.parquet"]
    with pytest.raises(DataError) as caught:
        write_fine_tuning_set(make_rows(10, speakers=10), tmp_path, FineTuningSettings(pairs=ANY, phonemes=False))
    assert "10 the only segment of its speaker" in str(caught.value)
    with pytest.raises(DataError):
        write_fine_tuning_set(Rows(rows.table, {}), tmp_path)
    assert CODEC["num_codebooks"] == 1
