"""The step that makes voice-cloning pairs, and rows to fine-tune on."""

from __future__ import annotations

from colabkit.io.places import Place
from colabkit.pipelines.dataset.config import PairsConfig
from colabkit.pipelines.dataset.pairs.neutts import FineTuningSettings, write_fine_tuning_set
from colabkit.pipelines.dataset.pairs.pairs import PairSettings
from colabkit.pipelines.dataset.publish.table import open_rows
from colabkit.runs.run import Run


def write_rows(config: PairsConfig, store: Place, run: Run) -> dict:
    """Write pairs/ and rows/ and return what is in them."""
    run.scratch_at_work.mkdir(parents=True, exist_ok=True)
    rows = open_rows(None, store, run.scratch_at_work)
    settings = PairSettings(
        most_tokens=config.most_tokens,
        pairs_per_segment=config.pairs_per_segment,
        shortest_reference_seconds=config.shortest_reference_seconds,
        longest_reference_seconds=config.longest_reference_seconds,
        channel="same" if config.same_channel else "any",
        seed=config.seed,
    )
    made = {}
    for name, paired in (("pairs", True), ("rows", False)):
        done = write_fine_tuning_set(
            rows,
            run.output / name,
            FineTuningSettings(pairs=settings, paired=paired, phonemes=config.phonemes, language=config.language),
            choose=run.choose,
        )
        made[name] = {"num_rows": done.num_rows, "num_tokens": done.num_tokens, "left_out": done.left_out}
        left_out = "; ".join(f"{number} left out: {reason}" for reason, number in done.left_out.items())
        run.say(f"  {name}: {done.num_rows} rows, {done.num_tokens} tokens" + (f"; {left_out}" if left_out else ""))
    return made
