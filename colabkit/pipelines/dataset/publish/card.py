"""The dataset card: what is in it, how it was made, how it loads in one line, and how its codes become speech again.

Format: https://huggingface.co/docs/hub/datasets-cards. Of a card that somebody has written, the text and the settings
stay: ours stands between two marks, and in the head we set what the files themselves say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from colabkit.core.disk import in_units

BEGIN, END = "<!-- colabkit: begin -->", "<!-- colabkit: end -->"
_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
    (float("inf"), "10M<n<100M"),
)
_OURS = ("configs", "dataset_info", "size_categories")  # what the files say, not an author


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitFacts:
    """One split. `paths` is the pattern of its files."""

    num_rows: int
    num_bytes: int
    seconds: float
    paths: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetFacts:
    """What a card says. features: columns as datasets calls them. codec: what a sidecar says of it, {} without codes.

    channels: {name: (segments, seconds)}. durations: {"5%": seconds, ...}. left_out: {reason: segments}. rates: {Hz:
    segments}.
    made: lines on how it was made, written by whoever knows; profile: further {what: value}.
    """

    title: str
    repo: str = ""
    language: str = ""
    licence: str = ""
    splits: Mapping[str, SplitFacts]
    features: Mapping[str, dict]
    codec: Mapping[str, object] = field(default_factory=dict)
    split_by: str = "none"
    num_speakers: int = 0
    channels: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    rates: Mapping[int, int] = field(default_factory=dict)
    durations: Mapping[str, float] = field(default_factory=dict)
    has_text: bool = False
    left_out: Mapping[str, int] = field(default_factory=dict)
    made: Sequence[str] = ()
    profile: Mapping[str, object] = field(default_factory=dict)
    pictures: Sequence[str] = ()


def write_card(facts: DatasetFacts, before: str | None = None) -> str:
    """Return README.md; `before` is the card that is there, whose own text and settings stay."""
    import yaml

    head, text = _parts(before)
    told = metadata(facts)
    # An author's title, licence and tags go before ours, unless the settings name them.
    named = {"license": facts.licence, "language": facts.language}
    for name, value in told.items():
        if name in _OURS or name not in head or named.get(name):
            head[name] = value
    ours = f"{BEGIN}\n{_body(facts)}{END}\n"
    if BEGIN in text and END in text:
        text = text[: text.index(BEGIN)] + ours + text[text.index(END) + len(END) :].lstrip("\n")
    else:
        text = f"{text.rstrip()}\n\n{ours}" if text.strip() else f"# {facts.title}\n\n{ours}"
    dumped = yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=120)
    return f"---\n{dumped}---\n\n{text}"


def metadata(facts: DatasetFacts) -> dict:
    """Return the YAML head: what datasets loads by, and what the Hub searches."""
    num_rows = sum(split.num_rows for split in facts.splits.values())
    num_bytes = sum(split.num_bytes for split in facts.splits.values())
    info = {
        "features": [_yaml_feature(name, feature) for name, feature in facts.features.items()],
        "splits": [
            {"name": name, "num_bytes": split.num_bytes, "num_examples": split.num_rows}
            for name, split in facts.splits.items()
        ],
        "download_size": num_bytes,
        "dataset_size": num_bytes,
    }
    tasks = ["text-to-speech", "automatic-speech-recognition"] if facts.has_text else ["audio-to-audio"]
    tags = ["audio", "speech", *([f"codec:{facts.codec['name']}"] if facts.codec else []), "colabkit"]
    return {
        "pretty_name": facts.title,
        **({"language": [facts.language]} if facts.language else {}),
        **({"license": facts.licence} if facts.licence else {}),
        "task_categories": tasks,
        "tags": tags,
        "size_categories": [next(name for most, name in _SIZES if num_rows < most)],
        "dataset_info": info,
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": name, "path": split.paths} for name, split in facts.splits.items()],
            }
        ],
    }


def _yaml_feature(name: str, feature: Mapping) -> dict:
    if feature["_type"] == "Audio":
        rate = feature["sampling_rate"]
        return {"name": name, "dtype": {"audio": {"sampling_rate": rate}} if rate else "audio"}
    if feature["_type"] == "Sequence":
        inner = feature["feature"]
        is_flat = inner["_type"] == "Value"
        return {"name": name, "sequence": inner["dtype"] if is_flat else {"sequence": inner["feature"]["dtype"]}}
    return {"name": name, "dtype": feature["dtype"]}


def _parts(before: str | None) -> tuple[dict, str]:
    """Return the head and the text of a card."""
    import yaml

    if not before:
        return {}, ""
    parts = before.split("---\n", 2)
    if len(parts) < 3 or parts[0].strip():
        return {}, before
    try:
        head = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return {}, parts[2]
    return (head if isinstance(head, dict) else {}), parts[2].lstrip("\n")


def _body(facts: DatasetFacts) -> str:
    hours = sum(split.seconds for split in facts.splits.values()) / 3600
    num_rows = sum(split.num_rows for split in facts.splits.values())
    speakers = f", {facts.num_speakers:,} speakers" if facts.num_speakers else ""
    length = f"{hours:,.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes"
    parts = [
        f"{length} of speech in {num_rows:,} segments{speakers}.",
        "## Load it",
        _loading(facts),
        "## What is in it",
        _table(
            ["split", "segments", "hours", "size"],
            [
                [name, f"{s.num_rows:,}", f"{s.seconds / 3600:,.2f}", in_units(s.num_bytes)]
                for name, s in facts.splits.items()
            ],
        ),
        {
            "speaker": "A speaker is in one split only: a hash of the name decides, so later data moves nobody.",
            "channel": "Each channel is a split.",
        }.get(facts.split_by, ""),
    ]
    if len(facts.channels) > 1:
        parts.append(
            _table(
                ["channel", "segments", "hours"],
                [
                    [name or "(not stated)", f"{n:,}", f"{s / 3600:,.2f}"]
                    for name, (n, s) in sorted(facts.channels.items())
                ],
            )
        )
    parts.append(
        _table(
            ["measured", "value"],
            [
                *[
                    [f"segments at {rate:,} Hz" if rate else "rate not stated", f"{n:,}"]
                    for rate, n in sorted(facts.rates.items())
                ],
                *(
                    [["length of a segment", ", ".join(f"{q}: {v:.2f} s" for q, v in facts.durations.items())]]
                    if facts.durations
                    else []
                ),
                *[[what, value] for what, value in facts.profile.items()],
            ],
        )
    )
    parts += [f"![{Path(name).stem}]({name})" for name in facts.pictures]
    parts.append(_columns(facts))
    if facts.codec:
        parts += ["## The codes", _codes(facts)]
    if facts.left_out or facts.made:
        parts.append("## How it was made")
        parts += ["\n".join(f"- {line}" for line in facts.made)]
        if facts.left_out:
            parts += [
                "Left out, because it could not be used:",
                _table(["reason", "segments"], [[reason, f"{n:,}"] for reason, n in sorted(facts.left_out.items())]),
            ]
    if not facts.licence:
        parts.append("No licence is stated here: ask those who made the recordings before you use it.")
    return "\n\n".join(part for part in parts if part) + "\n\n"


def _loading(facts: DatasetFacts) -> str:
    split = next(iter(facts.splits), "train")
    lines = [
        "from datasets import load_dataset",
        f'dataset = load_dataset("{facts.repo or "PATH/TO/THIS/FOLDER"}", split="{split}", streaming=True)',
        "print(next(iter(dataset)))",
    ]
    if "audio" in facts.features:
        lines[0] = "from datasets import Audio, load_dataset"
        lines.insert(
            2, 'dataset = dataset.cast_column("audio", Audio(decode=False))  # the file; torchcodec decodes it without'
        )
    return "```python\n" + "\n".join(lines) + "\n```"


def _columns(facts: DatasetFacts) -> str:
    flat = facts.features.get("codes", {}).get("feature", {}).get("_type") == "Value"
    known = {
        "key": "name of the segment",
        "audio": "an audio file: {bytes, path}",
        "codes": f"codes of the neural codec, shape ({'frame' if flat else 'codebook, frame'})",
        "text": "what is said, where it is known",
        "speaker": "who speaks",
        "channel": "where it comes from",
        "seconds": "length",
        "rate_hz": "sample rate of the audio",
        "metadata": "everything else that is known, as JSON",
    }
    return _table(["column", "what it holds"], [[f"`{name}`", known[name]] for name in facts.features])


def _codes(facts: DatasetFacts) -> str:
    codec = facts.codec
    frame_rate, books = float(codec["frame_rate_hz"]), int(codec["num_codebooks"])
    table = _table(
        ["codec", codec["name"]],
        [
            ["frames a second", f"{frame_rate:g}"],
            ["codebooks", books],
            ["entries of each", f"{int(codec['codebook_size']):,}"],
            ["tokens a second", f"{frame_rate * books:g}"],
            ["it hears", f"{int(codec['rate_hz_in']):,} Hz"],
            ["it speaks", f"{int(codec['rate_hz_out']):,} Hz"],
            ["fingerprint", f"`{codec['fingerprint']}`"],
        ],
    )
    shape = "np.array(row['codes'], np.uint16)[None]" if books == 1 else "np.array(row['codes'], np.uint16)"
    return (
        f"{table}\n\nTo hear them, with the codec of that fingerprint opened by colabkit:\n\n"
        "```python\nimport numpy as np\n"
        f"codes = {shape}  # (codebook, frame)\n[wave] = codec.decode_batch([codes])  # (sample,) at "
        f"{int(codec['rate_hz_out'])} Hz\n```"
    )


def _table(titles: Sequence, rows: Sequence[Sequence]) -> str:
    if not rows:
        return ""
    lines = [titles, ["---"] * len(titles), *rows]
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
