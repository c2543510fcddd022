"""The card of a model: how well it does, how it was made, how to use it, and nothing of anybody's machine."""

from __future__ import annotations

from colabkit.pipelines.asr.evaluate.metrics import score
from colabkit.pipelines.asr.publish.card import CardFacts, write_card

FACTS = CardFacts(
    title="Small words",
    repo="me/words",
    language="kaa",
    licence="apache-2.0",
    base_model="facebook/wav2vec2-base",
    train_hours=1.25,
    datasets=("hub:openslr/librispeech_asr/clean/train.100", "voices", "/home/ann/secret place", "s3://mine/x"),
    settings={"learning rate": 3e-4, "a|b": "c"},
    scores={"hub:openslr/librispeech_asr/clean/test": score(["a b c", "d e"], ["a b c", "d f"]).to_dict()},
    examples=score(["a b c", "d e"], ["a b c", "d f"]).worst(3),
    figures=("history.png",),
    text_rules="Lower case, no punctuation.",
)


def test_the_card_says_how_well_it_does_how_it_was_made_and_how_to_use_it(tmp_path):
    from huggingface_hub import ModelCard

    text = write_card(tmp_path, FACTS).read_text(encoding="utf-8")
    card = ModelCard(text)
    assert card.data.language == ["kaa"] and card.data.library_name == "transformers"
    assert card.data.datasets == ["openslr/librispeech_asr"]
    assert {r.metric_type: r.metric_value for r in card.data.eval_results} == {"wer": 20.0, "cer": 12.5}
    assert card.data.model_name == "Small words" and card.data.pipeline_tag == "automatic-speech-recognition"
    for part in (
        "20.00% (",
        "95% confidence",
        'model="me/words"',
        "![history](history.png)",
        "| a\\|b | c |",
        "1.2 hours",
        "| d e | d f | 50% |",
        "Lower case",
        "synthetic voices",
        "datasets/openslr/librispeech_asr)",
    ):
        assert part in text, part
    assert "ann" not in text and "mine" not in text
    usage = text.split("```python\n")[1].split("```")[0]
    assert len(usage.strip().splitlines()) == 5
    compile(usage, "usage", "exec")


def test_a_card_of_little_says_what_is_missing(tmp_path):
    from huggingface_hub import ModelCard

    text = write_card(tmp_path, CardFacts(title='Bare: "quoted"')).read_text()
    assert ModelCard(text).data.license is None and "No licence is stated" in text and "random weights" in text
