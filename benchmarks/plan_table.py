"""The table of batch sizes in the README: what `colabkit plan asr` and published tables say of each model and GPU.

python benchmarks/plan_table.py
"""

from __future__ import annotations

from colabkit.plan import GPUS, plan

MODELS = (
    "facebook/wav2vec2-base",
    "facebook/hubert-base-ls960",
    "facebook/wav2vec2-xls-r-300m",
    "facebook/w2v-bert-2.0",
    "facebook/wav2vec2-xls-r-1b",
    "facebook/wav2vec2-xls-r-2b",
    "openai/whisper-small",
    "openai/whisper-large-v3",
)


def cell(row: dict) -> str:
    """Return samples of 30 s at once / of 10 s at once, the memory of the first, and the published value."""
    if "error" in row:
        text = f"needs {row['needed_gib']:.0f} GiB" if "help" in row else "cannot"
    else:
        checkpointing = " ᶜ" if row["checkpointing"] else ""
        longest, typical = row["longest"], row["typical"]
        text = f"{longest['at_once']} / {typical['at_once']}{checkpointing} · {longest['predicted_gib']:.1f} GiB"
    return text + (f" ({row['documented']})" if row["documented"] else "")


def main() -> None:
    print(f"| model | {' | '.join(GPUS)} |\n|{'---|' * (len(GPUS) + 1)}")
    for model in MODELS:
        rows = plan("asr", GPUS, settings=[f"model.name={model}"], say=lambda text: None)["rows"]
        print(f"| {model} | {' | '.join(cell(row) for row in rows)} |", flush=True)


if __name__ == "__main__":
    main()
