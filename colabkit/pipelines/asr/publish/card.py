"""The model card: what the model is, how well it does, how it was made and how to use it.

Format: https://huggingface.co/docs/hub/model-cards, the YAML head's model-index as the Hub reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from colabkit.core import files

_TASK = {"type": "automatic-speech-recognition", "name": "Automatic Speech Recognition"}
_LONGEST_EXAMPLE = 200  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFacts:
    """What a card says; sources are told by `describe_source`, so that no path of a machine gets into it.

    scores: {name of the test set: Scores.to_dict()}. settings: how it was trained, as {what: value}. examples: rows of
    Scores.worst. figures: names of pictures that lie beside the card.
    """

    title: str
    repo: str = ""
    language: str = ""
    licence: str = ""
    base_model: str = ""
    family: str = "ctc"  # or "whisper"
    datasets: Sequence[str] = ()
    train_hours: float = 0.0
    scores: Mapping[str, Mapping] = field(default_factory=dict)
    text_rules: str = ""
    settings: Mapping[str, object] = field(default_factory=dict)
    examples: Sequence[Mapping] = ()
    figures: Sequence[str] = ()


def write_card(folder: Path, facts: CardFacts) -> Path:
    """Write README.md with its YAML head into a model's folder and return its path."""
    import yaml

    head = yaml.safe_dump(metadata(facts), sort_keys=False, allow_unicode=True, width=120)
    path = Path(folder) / "README.md"
    files.write_atomic(path, f"---\n{head}---\n\n{_body(facts)}")
    return path


def describe_source(address: str) -> str:
    """Return what a card says of a source: a dataset of the Hub by name, a place of one's own without its path."""
    scheme = address.partition(":")[0] if ":" in address else ""
    if scheme == "hub":
        return f"[{_hub_name(address)}](https://huggingface.co/datasets/{_hub_name(address)})"
    if address == "voices":
        return "synthetic voices"
    return "recordings in a bucket" if scheme in ("s3", "gs") else "recordings of its own"


def metadata(facts: CardFacts) -> dict:
    """Return the YAML head: what the Hub searches and shows."""
    hub_sets = sorted({_hub_name(d) for d in facts.datasets if d.startswith("hub:")})
    head = {
        "language": [facts.language] if facts.language else [],
        "license": facts.licence,
        "library_name": "transformers",
        "pipeline_tag": _TASK["type"],
        "base_model": facts.base_model if facts.base_model.count("/") == 1 else "",
        "tags": [_TASK["type"], "speech", facts.family, "colabkit"],
        "datasets": hub_sets,
        "metrics": ["wer", "cer"],
        "model-index": [
            {"name": facts.title, "results": [_result(name, scores) for name, scores in facts.scores.items()]}
        ]
        if facts.scores
        else [],
    }
    return {name: value for name, value in head.items() if value not in ("", [], None)}


def _result(name: str, scores: Mapping) -> dict:
    dataset = {"name": name, "type": _hub_name(name) if name.startswith("hub:") else name}
    metrics = [
        {"type": kind, "name": f"Test {kind.upper()}", "value": round(100 * scores[kind], 2)} for kind in ("wer", "cer")
    ]
    return {"task": _TASK, "dataset": dataset, "metrics": metrics}


def _body(facts: CardFacts) -> str:
    made = (
        f"fine-tuned from [{facts.base_model}](https://huggingface.co/{facts.base_model})"
        if facts.base_model
        else "trained from random weights"
    )
    parts = [
        f"# {facts.title}",
        f"Speech recognition{f' in {facts.language}' if facts.language else ''}, {made}"
        + (f" on {facts.train_hours:.1f} hours of speech" if facts.train_hours else "")
        + ".",
    ]
    if facts.scores:
        parts += ["## How well it does", _score_table(facts.scores)]
    parts += [f"![{Path(name).stem}]({name})" for name in facts.figures]
    parts += ["## How to use it", _usage(facts)]
    if facts.text_rules:
        parts += ["## What it writes", facts.text_rules]
    if facts.settings:
        parts += ["## How it was trained", _table(["setting", "value"], [[k, v] for k, v in facts.settings.items()])]
    if facts.datasets:
        parts.append("Trained on " + ", ".join(describe_source(name) for name in facts.datasets) + ".")
    if facts.examples:
        rows = [[_cut(row["reference"]), _cut(row["hypothesis"]), f"{row['wer']:.0%}"] for row in facts.examples]
        parts += ["## Where it goes wrong most", _table(["said", "heard", "WER"], rows)]
    parts += [
        "## Limits",
        "Speech unlike that of the training data (other accents, noise, other topics) is heard less well."
        if facts.licence
        else "- No licence is stated here: check that of the base model and of the speech it was trained on.",
    ]
    return "\n\n".join(parts) + "\n"


def _score_table(scores: Mapping[str, Mapping]) -> str:
    rows = [
        [
            name,
            f"{s['wer']:.2%} ({s['wer_low']:.2%} to {s['wer_high']:.2%})",
            f"{s['cer']:.2%} ({s['cer_low']:.2%} to {s['cer_high']:.2%})",
            s["num_samples"],
            s["num_words"],
        ]
        for name, s in scores.items()
    ]
    confidence = next(iter(scores.values())).get("confidence", 0.95)
    table = _table(["test set", "WER", "CER", "samples", "words"], rows)
    return f"{table}\n\nIn brackets: {confidence:.0%} confidence intervals, bootstrap over samples."


def _usage(facts: CardFacts) -> str:
    name = facts.repo or "PATH/TO/THIS/FOLDER"
    unit = '"word"' if facts.family == "ctc" else "True"
    return (
        "```python\nfrom transformers import pipeline\n"
        f'recognise = pipeline("automatic-speech-recognition", model="{name}")\n'
        f'result = recognise("recording.wav", return_timestamps={unit})\n'
        'print(result["text"])\nprint(result["chunks"])\n```'
    )


def _table(titles: Sequence[str], rows: Sequence[Sequence]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_EXAMPLE else text[:_LONGEST_EXAMPLE] + "..."


def _hub_name(address: str) -> str:
    """Return ORG/NAME of hub:ORG/NAME/CONFIG/SPLIT@REVISION."""
    return "/".join(address.removeprefix("hub:").partition("@")[0].split("/")[:2])
