"""The card as datasets and the Hub read it."""

from __future__ import annotations

from colabkit.pipelines.dataset.publish.card import BEGIN, DatasetFacts, SplitFacts, metadata, write_card

CODEC = {
    "name": "neucodec",
    "fingerprint": "abc",
    "frame_rate_hz": 50.0,
    "num_codebooks": 1,
    "codebook_size": 65536,
    "rate_hz_in": 16000,
    "rate_hz_out": 24000,
}
FEATURES = {
    "key": {"dtype": "string", "_type": "Value"},
    "audio": {"sampling_rate": 16000, "_type": "Audio"},
    "codes": {"feature": {"dtype": "uint16", "_type": "Value"}, "_type": "Sequence"},
}
FACTS = DatasetFacts(
    title="Zad: voices",
    repo="me/voices",
    language="ar",
    licence="cc-by-4.0",
    features=FEATURES,
    codec=CODEC,
    split_by="speaker",
    splits={
        "train": SplitFacts(num_rows=620_000, num_bytes=90 << 30, seconds=2e6, paths="data/x/train-*.parquet"),
        "test": SplitFacts(num_rows=36_300, num_bytes=5 << 30, seconds=1e5, paths="data/x/test-*.parquet"),
    },
    num_speakers=1234,
    channels={"Zad | TV": (600_000, 2e6), "Atheer": (56_300, 1e5)},
    rates={16000: 656_300},
    durations={"5%": 1.2, "50%": 3.0},
    has_text=True,
    left_out={"its rate is not what was encoded": 7},
    made=["cut with silero-vad"],
    profile={"loudness": "-23 LUFS"},
)


def test_the_head_is_what_datasets_reads():
    from datasets import DatasetInfo, Features
    from huggingface_hub import DatasetCard

    card = DatasetCard(write_card(FACTS))
    told = card.data.to_dict()
    assert told["license"] == "cc-by-4.0" and told["language"] == ["ar"] and told["size_categories"] == ["100K<n<1M"]
    info = DatasetInfo._from_yaml_dict(told["dataset_info"])
    assert info.features == Features.from_dict(FEATURES) and info.splits["test"].num_examples == 36_300
    assert [f["split"] for f in told["configs"][0]["data_files"]] == ["train", "test"]
    several = {
        "codes": {"feature": FEATURES["codes"], "_type": "Sequence"},
        "audio": {"sampling_rate": None, "_type": "Audio"},
    }
    from dataclasses import replace

    info = DatasetInfo._from_yaml_dict(metadata(replace(FACTS, features=several))["dataset_info"])
    assert info.features == Features.from_dict(several)


def test_the_text_says_what_is_in_it():
    text = write_card(FACTS)
    for part in (
        "583.3 hours",
        "656,300 segments",
        "1,234 speakers",
        'load_dataset("me/voices", split="train", streaming=True)',
        "Zad \\| TV",
        "`abc`",
        "decode_batch",
        "50%: 3.00 s",
        "-23 LUFS",
        "cut with silero-vad",
        "its rate is not",
        "shape (frame)",
    ):
        assert part in text, part
    loading = text.split("```python\n")[1].split("```")[0]
    compile(loading, "loading", "exec")
    compile(text.split("```python\n")[2].split("```")[0], "codes", "exec")


def test_a_card_that_is_there_keeps_what_its_author_wrote():
    from dataclasses import replace

    mine = "---\nlicense: mit\ntags: [own]\nextra: 1\n---\n\n# My words\n"
    bare = replace(FACTS, licence="", language="")
    once = write_card(bare, mine)
    twice = write_card(replace(bare, title="Other", num_speakers=2), once)
    for text in (once, twice):
        assert (
            text.startswith("---\nlicense: mit\n") and "- own" in text and "extra: 1" in text and "# My words" in text
        )
        assert text.count(BEGIN) == 1 and "train-*.parquet" in text
    assert "2 speakers" in twice and "1,234 speakers" not in twice
    assert write_card(FACTS, once).count("license: cc-by-4.0") == 1
    assert "no head" in write_card(FACTS, "no head") and "---\n: :\n---\nrest" not in write_card(
        FACTS, "---\n: [\n---\nrest"
    )


def test_without_a_licence_that_is_said():
    from dataclasses import replace

    assert "No licence is stated" in write_card(replace(FACTS, licence=""))
    assert "No licence" not in write_card(FACTS)
