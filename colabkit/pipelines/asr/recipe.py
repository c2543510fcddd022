"""ASR fine-tuning, step by step. READ THIS FIRST.

| step         | does                                               | reads          | writes                         |
|--------------|----------------------------------------------------|----------------|--------------------------------|
| 01_data      | lists samples and transcripts, splits them         | sources        | listing.json, indexes          |
| 02_text      | cleans the transcripts, makes the vocabulary       | 01             | texts.safetensors, vocab.json  |
| 03_configure | profiles machine, speech, model; says how to train | 01, 02         | training_config.json, a plot   |
| 04_train     | fine-tunes the model, at the batch that fits       | 01, 02         | model/, history.jsonl          |
| 05_evaluate  | WER and CER with intervals on held-out speech      | 01, 02, 04     | scores.json, hypotheses.jsonl  |
| 06_publish   | writes the model card, pushes to the Hub if named  | 01, 03, 04, 05 | README.md                      |
| 07_example   | transcribes a recording with timestamps            | 01, 02, 04     | example.wav, .srt, .txt, .json |
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from colabkit.core import files
from colabkit.core.errors import UsageError
from colabkit.io.samples.listing import open_listing
from colabkit.pipelines.asr import RATE_HZ
from colabkit.pipelines.asr.config import Config
from colabkit.pipelines.asr.configure.step import (
    TRAINING_CONFIG,
    capacity_of,
    choose_cache,
    configure_run,
    configured,
    processes_to_train,
)
from colabkit.pipelines.asr.data import sources
from colabkit.pipelines.asr.data.texts import open_texts
from colabkit.runs.run import Run
from colabkit.runs.steps import step

PAUSE_SECONDS = 0.4  # between the samples of the example
SUFFIXES = (".txt", ".srt", ".json")  # of a transcript


@step(
    "01_data",
    uses=("data", "text"),
    writes=("listing.json", "*.safetensors", "voices/*"),
    outside=lambda config: sources.fingerprint_inputs(config.data),
    resumes=True,
)
def data(config: Config, run: Run) -> dict[str, Any]:
    """List samples: where each lies, what is said in it, which split; resumes at the next shard."""
    listing = sources.list_samples(config.data, run.output, run, language=config.text.language)
    return {f"{name}_samples": len(split) for name, split in listing.splits.items()} | {
        "hours": round(sum(listing.hours.values()), 3),
        "left_aside": sum(listing.left_aside.values()),
    }


@step("02_text", uses=("text",), reads=("01_data",), writes=("texts.safetensors", "vocab.json", "*.json"))
def text(config: Config, run: Run) -> dict[str, Any]:
    """Clean the transcripts, and make the vocabulary of those to train on."""
    from colabkit.pipelines.asr.text.cleaner import Cleaner
    from colabkit.pipelines.asr.text.step import clean_listing

    listing = open_listing(run.folder_of("01_data"), rate_hz=RATE_HZ)
    cleaned = clean_listing(listing, Cleaner(config.text), run, rare_fraction=config.text.rare_fraction)
    cleaned.save(run.output)
    files.write_json(run.output / "text.json", cleaned.to_dict())
    return {"characters": len(cleaned.vocabulary.characters)}


@step(
    "03_configure",
    uses=("data", "model", "sizing", "train"),
    reads=("01_data", "02_text"),
    writes=("training_config.json", "memory.png"),
)
def configure(config: Config, run: Run) -> dict[str, Any]:
    """Profile hardware, speech and model, and choose how to train; each choice with its reason."""
    from colabkit.pipelines.asr.configure.plots import draw_memory

    num_processes = processes_to_train(config.train.processes)
    chosen, manager = configure_run(config, _listing(config, run), len(_vocabulary(run)), run, num_processes)
    manager.save_config(chosen, run.output / TRAINING_CONFIG)
    draw_memory(run.output / "memory.png", manager.sizing)
    run.say(str(manager.table()))
    run.say(str(manager.sizing.table()))
    return {
        "at_once": chosen.per_device_train_batch_size,
        "parts": chosen.gradient_accumulation_steps,
        "predicted_gib": chosen.predicted_gib,
    }


@step(
    "04_train",
    uses=("data", "text", "model", "sizing", "train"),
    reads=("01_data", "02_text"),
    writes=("model/*", "history.jsonl", "history.png"),
    resumes=True,
    processes="train.processes",
)
def train(config: Config, run: Run) -> dict[str, Any] | None:
    """Fine-tune; resumes at the very next sample."""
    from colabkit.pipelines.asr.configure import plots
    from colabkit.pipelines.asr.configure.training_config import TrainingConfig
    from colabkit.pipelines.asr.model.recognizer import build_model
    from colabkit.pipelines.asr.train import loop
    from colabkit.training.processes.ranks import join
    from colabkit.training.sizing.chosen import Sizing

    listing, vocabulary, ranks = _listing(config, run), _vocabulary(run), join()

    def decide() -> tuple[dict, dict]:
        chosen, sizing = configured(config, listing, len(vocabulary), run, run.folder_of("03_configure"), ranks.world)
        run.say(f"  {chosen.equation()}; of shorter samples more go through at once")
        return chosen.to_dict(), sizing.to_dict()

    chosen, sizing = ranks.from_first(decide)
    chosen = TrainingConfig(**chosen)
    recognizer = build_model(
        config.model, vocabulary, language=config.text.language, seed=config.train.seed, choose=run.choose
    )
    metrics = loop.train(
        config.train,
        recognizer,
        listing["train"],
        listing["validation"],
        Sizing.from_dict(sizing),
        run,
        arguments=loop.arguments_of(chosen, run.output / "trainer"),
        workers=max(1, chosen.dataloader_num_workers),
    )
    if metrics is not None:  # None in all processes but the first
        rows = [json.loads(line) for line in (run.output / "history.jsonl").read_text().splitlines()]
        plots.draw_history(run.output / "history.png", rows)
    return metrics


@step(
    "05_evaluate",
    uses=("data", "text", "evaluate"),
    reads=("01_data", "02_text", "04_train"),
    writes=("scores.json", "hypotheses.jsonl", "*.arpa"),
)
def evaluate(config: Config, run: Run) -> dict[str, Any]:
    """Transcribe held-out speech; WER and CER with confidence intervals, and the worst examples."""
    from colabkit.core.table import Table
    from colabkit.pipelines.asr.evaluate.step import evaluate_model

    scores, names = evaluate_model(
        config.evaluate,
        run.folder_of("04_train") / "model",
        _listing(config, run),
        run,
        capacity=capacity_of(run.folder_of("03_configure")),
    )
    rows = [{"name": name, **row} for name, row in zip(names, scores.table(), strict=True)]
    files.write_atomic(
        run.output / "hypotheses.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    )
    found, worst = scores.to_dict(), scores.worst(config.evaluate.num_worst)
    files.write_json(run.output / "scores.json", {**found, "decoder": config.evaluate.decoder, "worst": worst})
    run.say(
        str(
            Table(
                ["said", "heard", "WER"],
                [[row["reference"], row["hypothesis"], row["wer"]] for row in worst],
                title="the worst examples",
            )
        )
    )
    return {name: found[name] for name in ("wer", "wer_low", "wer_high", "cer", "cer_low", "cer_high", "num_samples")}


@step(
    "06_publish",
    uses=("data", "text", "model", "publish"),
    reads=("01_data", "03_configure", "04_train", "05_evaluate"),
    writes=("README.md", "*.png"),
)
def publish(config: Config, run: Run) -> dict[str, Any]:
    """Write the model card, and push model and card to the Hub where a repository is named."""
    from colabkit.pipelines.asr.publish.step import publish_model

    return publish_model(config, run)


@step(
    "07_example",
    uses=("data", "text", "example"),
    reads=("01_data", "02_text", "04_train"),
    writes=("example.wav", "example.srt", "example.txt", "example.json"),
)
def example(config: Config, run: Run) -> dict[str, Any]:
    """Transcribe one recording, with the times of its words."""
    from colabkit.io.audio import write_wav
    from colabkit.pipelines.asr import transcribe

    wave = _example_wave(config, run)
    write_wav(run.output / "example.wav", wave, RATE_HZ)
    model = run.folder_of("04_train") / "model"
    transcript = transcribe.Transcriber.from_folder(model, longest_seconds=config.data.longest_seconds).transcribe(wave)
    for suffix in SUFFIXES:
        transcribe.write(transcript, run.output / f"example{suffix}")
    run.say(f"  {transcript.text}")
    return {"example_seconds": round(transcript.seconds, 2), "example_words": len(transcript.text.split())}


STEPS = (data, text, configure, train, evaluate, publish, example)


def apply(run_folder: Path, paths: list[Path], output: Path) -> list[Path]:
    """Transcribe audio files with a run's model: text, subtitles and word times of each, named after the recording."""
    from colabkit.pipelines.asr.transcribe import Transcriber, write

    folder = run_folder / train.id / "model"
    if not folder.is_dir():
        raise UsageError(
            "This run has nothing to apply yet",
            got=str(run_folder),
            expected=f"{train.id} done",
            fix=f"colabkit run asr --run {run_folder.name}, which continues it",
        )
    transcriber = Transcriber.from_folder(folder)
    return [
        write(transcript, output / f"{path.stem}{suffix}")
        for path in paths
        for transcript in [transcriber.transcribe(path)]
        for suffix in SUFFIXES
    ]


def _listing(config: Config, run: Run):
    """Open the samples whose texts could be cleaned, with these texts."""
    listing = open_listing(run.folder_of("01_data"), rate_hz=RATE_HZ)
    if cache_gib := choose_cache(config.data, listing, run):
        listing = open_listing(run.folder_of("01_data"), run.scratch / "audio", cache_gib, rate_hz=RATE_HZ)
    return open_texts(run.folder_of("02_text") / "texts.safetensors", listing)


def _example_wave(config: Config, run: Run):
    """Read the recording of the example, or put some held-out samples one after the other."""
    import numpy as np

    from colabkit.io.audio import read_audio

    if config.example.file:
        return read_audio(config.example.file, rate_hz=RATE_HZ)
    split, pause = _listing(config, run)["test"], np.zeros(round(PAUSE_SECONDS * RATE_HZ), np.float32)
    chosen = range(min(config.example.num_samples, len(split)))
    return np.concatenate([part for i in chosen for part in (split.read_wave(i), pause)])


def _vocabulary(run: Run):
    from colabkit.pipelines.asr.text.vocabulary import Vocabulary

    return Vocabulary.load(run.folder_of("02_text"))
