"""Streaming speaker diarization, step by step. READ THIS FIRST.

| step        | does                                               | reads      | writes                           |
|-------------|----------------------------------------------------|------------|----------------------------------|
| 01_speech   | lists samples and speakers of sources, splits them | sources    | speech.json, indexes             |
| 02_train    | trains on conversations simulated on the fly       | 01         | model.safetensors, history.jsonl |
| 03_tune     | finds how far apart voices are, how much to smooth | 01, 02     | diarizer.json                    |
| 04_evaluate | DER on conversations of speakers never heard       | 01, 02, 03 | scores.json, RTTM, timeline.png  |
| 05_export   | ONNX and int8, checked against PyTorch             | 01, 02, 03 | model.onnx, model.int8.onnx      |
| 06_example  | one longer conversation, through ONNX alone        | 01, 05     | example.rttm, .wav, .png         |
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from colabkit.core import files
from colabkit.core.errors import UsageError
from colabkit.core.teller import Teller
from colabkit.io.audio import read_audio, write_wav
from colabkit.io.samples.source import fingerprint_sources
from colabkit.pipelines.diarization import FRAME_SAMPLES, RATE_HZ, workload
from colabkit.pipelines.diarization.config import Config, EvaluateConfig, InferConfig, ModelConfig
from colabkit.pipelines.diarization.conversations import windows
from colabkit.pipelines.diarization.evaluate import timeline
from colabkit.pipelines.diarization.evaluate.metrics import score
from colabkit.pipelines.diarization.evaluate.step import (
    Conversation,
    choose_lowest,
    conversation,
    diarize_all,
    measure,
)
from colabkit.pipelines.diarization.infer import Diarizer, tuned_in
from colabkit.pipelines.diarization.rttm import write_rttm
from colabkit.pipelines.diarization.speech import recordings
from colabkit.pipelines.diarization.speech.bank import SpeechBank
from colabkit.pipelines.diarization.speech.pool import load_bank, training_speech
from colabkit.pipelines.diarization.speech.step import Speech, list_speech, open_speech, write_speech
from colabkit.runs.run import Run
from colabkit.runs.steps import step
from colabkit.training.processes.ranks import join

LONG_MIX_SECONDS, NUM_LONG_MIXES = 45.0, 10
CLUSTER_DISTANCES = (0.05, 0.08, 0.12, 0.16, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8, 0.9)
SMOOTHING_SECONDS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8)


def _outside(config: Config) -> dict[str, str]:
    recorded = (config.recordings.train_source, config.recordings.test_source)
    return fingerprint_sources((*config.speech.source, *filter(None, recorded)))


@step(
    "01_speech",
    uses=("speech", "recordings"),
    writes=("speech.json", "*.safetensors", "voices/*"),
    outside=_outside,
    resumes=True,
    version=2,
)
def speech(config: Config, run: Run) -> dict[str, Any]:
    """List speech and recordings: where each sample lies, who speaks, which split; resumes at the next shard."""
    recordings.require_sources(config.recordings)
    listed = list_speech(config.speech, run.output, run)
    real = {split: recordings.list_recordings(config.recordings, split, run.output, run) for split in ("train", "test")}
    write_speech(run.output, listed, {"recordings": real})
    files.remove_generation(run.output / "parts")
    return {"speech_hours": round(sum(listed.listing.hours.values()), 2)} | {
        f"num_{split}_speakers": len(listed.of_split(split)) for split in listed.listing
    }


@step(
    "02_train",
    uses=("speech", "recordings", "simulate", "model", "train", "infer"),
    reads=("01_speech",),
    writes=("model.safetensors", "model.json", "history.jsonl", "history.png"),
    resumes=True,
    processes="train.processes",
)
def train(config: Config, run: Run) -> dict[str, Any] | None:
    """Train on simulated and real conversations; resumes at the last checkpoint."""
    from colabkit.pipelines.diarization.train import loop
    from colabkit.pipelines.diarization.train.batches import TrainingBatches, training_simulator

    listed = _speech(config, run)
    spoken = training_speech(listed, run)
    run.say(f"  {spoken.num_classes} speakers, {spoken.hours:.2f} h of speech")
    how = {"seed": config.train.seed, "max_speakers": config.model.num_speakers}
    simulator = training_simulator(spoken, config.simulate, **how)
    real = windows.training_windows(
        _recordings(config, run, "train"),
        run,
        max_hours=config.recordings.max_hours,
        fraction=config.recordings.fraction,
        window_seconds=config.simulate.window_seconds,
        **how,
    )
    batches = TrainingBatches(
        simulator,
        real,
        real_fraction=config.recordings.fraction,
        effective_batch=config.train.effective_batch,
        seed=config.train.seed,
    )
    mixes = _mixes(
        config, _bank(config, run, "validation", listed), num_mixes=config.train.num_validation_mixes, seconds=20.0
    )
    metrics = loop.train(
        config.train,
        config.model,
        batches,
        _validator(config, mixes),
        spoken.num_classes,
        run,
        windows_at_once=workload.windows_at_once(config, join(), run),
    )
    if metrics is not None:  # None in all processes but the first
        rows = [json.loads(line) for line in (run.output / "history.jsonl").read_text().splitlines()]
        timeline.draw_history(run.output / "history.png", rows)
    return metrics


@step(
    "03_tune", uses=("speech", "simulate", "infer", "model"), reads=("01_speech", "02_train"), writes=("diarizer.json",)
)
def tune(config: Config, run: Run) -> dict[str, Any]:
    """Find the distance between voices that links windows best, then the smoothing, on validation speakers."""
    diarizer = _diarizer(config, run)
    wanted = {"cluster_distance": CLUSTER_DISTANCES, "smoothing_seconds": SMOOTHING_SECONDS}
    given = {name: value for name in wanted if (value := getattr(config.infer, name)) is not None}
    for name, value in given.items():
        diarizer = replace(diarizer, **{name: run.choose(f"infer.{name}", value, "it is set")})
    if len(given) < len(wanted):
        bank = _bank(config, run, "validation")
        mixes = _mixes(
            config, bank, num_mixes=NUM_LONG_MIXES, seconds=LONG_MIX_SECONDS, num_speakers=min(3, len(bank.speakers))
        )
        scored = [list(diarizer.score(mix.wave)) for mix in mixes]
        for name, candidates in wanted.items():
            if name not in given:
                diarizer = _tuned(run, diarizer, name, candidates, mixes, scored)
    files.write_atomic(run.output / "diarizer.json", diarizer.describe())
    return {name: getattr(diarizer, name) for name in wanted}


def _tuned(
    run: Run,
    diarizer: Diarizer,
    name: str,
    candidates: Sequence[float],
    mixes: list[Conversation],
    scored: list[list[tuple[Any, Any]]],
) -> Diarizer:
    """Return the diarizer with the value of a setting that serves validation conversations best."""
    turned = {value: replace(diarizer, **{name: value}) for value in candidates}
    best, tried = choose_lowest(
        lambda value: [
            turned[value].link(turned[value].decode(len(mix.wave) // FRAME_SAMPLES, parts))
            for mix, parts in zip(mixes, scored, strict=True)
        ],
        mixes,
        candidates,
    )
    run.choose(
        f"infer.{name}",
        best,
        f"DER {tried[best]:.1%} on {len(mixes)} conversations of validation speakers, from "
        f"{min(tried.values()):.1%} to {max(tried.values()):.1%} over the range",
    )
    return turned[best]


@step(
    "04_evaluate",
    uses=("speech", "recordings", "model", "evaluate", "infer"),
    reads=("01_speech", "02_train", "03_tune"),
    writes=("scores.json", "*/*.rttm", "timeline.png"),
)
def evaluate(config: Config, run: Run) -> dict[str, Any]:
    """Score conversations of speakers that training never heard, and real recordings where given."""
    diarizer = _diarizer(config, run)
    settings = config.evaluate
    sets = {
        "mixes": _mixes(
            config,
            _bank(config, run, "test"),
            num_mixes=settings.num_mixes,
            seconds=settings.mix_seconds,
            num_speakers=settings.num_speakers,
            seed=settings.seed,
            settings=settings,
        )
    }
    if real := _recordings(config, run, "test"):
        sets["recordings"] = [
            Conversation(r.name, recordings.read_recording(r), list(r.turns), list(r.regions)) for r in real
        ]
    scores = {}
    for name, conversations in sets.items():
        hypotheses = diarize_all(diarizer, conversations)
        scores[name] = measure(conversations, hypotheses, settings.collar_seconds)
        for kind in ("reference", "hypothesis"):
            (run.output / kind).mkdir(exist_ok=True)
        for one, hypothesis in zip(conversations, hypotheses, strict=True):
            write_rttm(run.output / "reference" / f"{one.name}.rttm", one.name, one.turns)
            write_rttm(run.output / "hypothesis" / f"{one.name}.rttm", one.name, hypothesis)
        if name == list(sets)[-1]:
            timeline.draw_timeline(
                run.output / "timeline.png",
                conversations[0].wave,
                hypotheses[0],
                conversations[0].turns,
                f"{conversations[0].name}: reference (pale) and what was found",
            )
    files.write_json(run.output / "scores.json", scores)
    return {
        (key if name == "mixes" else f"{name}_{key}"): value
        for name, values in scores.items()
        for key, value in values.items()
    }


@step(
    "05_export",
    uses=("speech", "model", "export", "evaluate"),
    reads=("01_speech", "02_train", "03_tune"),
    writes=("model.onnx", "model.int8.onnx", "diarizer.json"),
)
def export(config: Config, run: Run) -> dict[str, Any]:
    """Write ONNX files that compute what the model computes, at any length."""
    from colabkit.pipelines.diarization.model.export import (
        CHECK_SECONDS,
        check_parity,
        export_int8,
        export_onnx,
        require_parity,
    )

    model = _model(run)
    mix = _mixes(config, _bank(config, run, "validation"), num_mixes=1, seconds=max(CHECK_SECONDS))[0]
    waves = [mix.wave[: int(seconds * RATE_HZ)] for seconds in CHECK_SECONDS]
    path = run.output / "model.onnx"
    export_onnx(model, path, opset=config.export.opset)
    difference, _ = check_parity(model, path, waves)
    require_parity(difference, config.export.tolerance, path)
    metrics = {"onnx_difference": difference, "onnx_bytes": path.stat().st_size}
    if config.export.int8:
        small = run.output / "model.int8.onnx"
        export_int8(path, small)
        metrics |= {"int8_same_decisions": check_parity(model, small, waves)[1], "int8_bytes": small.stat().st_size}
    files.write_atomic(run.output / "diarizer.json", (run.folder_of("03_tune") / "diarizer.json").read_text())
    return metrics


@step(
    "06_example",
    uses=("speech", "example", "evaluate"),
    reads=("01_speech", "05_export"),
    writes=("example.rttm", "example.wav", "example.png"),
)
def example(config: Config, run: Run) -> dict[str, Any]:
    """Diarize one longer conversation of held-out speakers through ONNX alone."""
    bank = _bank(config, run, "test")
    talk = _mixes(
        config,
        bank,
        num_mixes=1,
        seconds=config.example.seconds,
        seed=config.example.seed,
        num_speakers=min(config.example.num_speakers, len(bank.speakers)),
    )[0]
    turns = Diarizer.from_onnx(run.folder_of("05_export")).diarize(talk.wave)
    write_rttm(run.output / "example.rttm", "example", turns)
    write_wav(run.output / "example.wav", talk.wave / max(1.0, abs(talk.wave).max()), RATE_HZ)
    der = score(talk.turns, turns, uem=talk.regions, collar_seconds=config.evaluate.collar_seconds).der
    timeline.draw_timeline(run.output / "example.png", talk.wave, turns, talk.turns, f"who speaks when, DER {der:.1%}")
    return {"example_der": der}


STEPS = (speech, train, tune, evaluate, export, example)


def apply(run_folder: Path, paths: list[Path], output: Path) -> list[Path]:
    """Diarize audio files with what a run exported: one RTTM a file, named after the recording."""
    if not (run_folder / export.id).is_dir():
        raise UsageError(
            "This run has nothing to apply yet",
            got=str(run_folder),
            expected=f"{export.id} done",
            fix=f"colabkit run diarization --run {run_folder.name}, which continues it",
        )
    diarizer = Diarizer.from_onnx(run_folder / export.id)
    written = [output / f"{path.stem}.rttm" for path in paths]
    for path, target in zip(paths, written, strict=True):
        write_rttm(target, path.stem, diarizer.diarize(read_audio(path, rate_hz=RATE_HZ)))
    return written


def _speech(config: Config, run: Run) -> Speech:
    return open_speech(config.speech, run.folder_of("01_speech"), run.scratch / "audio")


def _bank(config: Config, run: Run, split: str, listed: Speech | None = None) -> SpeechBank:
    return load_bank(listed or _speech(config, run), split, run, hours=config.speech.held_out_hours)


def _recordings(config: Config, run: Run, split: str) -> list[recordings.Recording]:
    # Problems were told when the files were listed.
    silent = Teller(say=lambda line: None)
    return recordings.open_recordings(
        config.recordings,
        split,
        run.folder_of("01_speech"),
        silent,
        cache=run.scratch / "audio",
        cache_gib=config.speech.cache_gib,
    )


def _mixes(
    config: Config,
    bank: SpeechBank,
    *,
    num_mixes: int,
    seconds: float,
    num_speakers: int = 2,
    seed: int = 500,
    settings: EvaluateConfig | None = None,
) -> list[Conversation]:
    from colabkit.pipelines.diarization.train.batches import held_out_simulator

    simulator = held_out_simulator(
        bank, settings or EvaluateConfig(), seconds=seconds, num_speakers=num_speakers, seed=seed
    )
    return [conversation(f"mix{i:04d}", simulator.sample(i)) for i in range(num_mixes)]


def _validator(config: Config, mixes: Sequence[Conversation]) -> Callable[[Any], dict[str, float]]:

    def validate(model: Any) -> dict[str, float]:
        diarizer = _torch_diarizer(model, config.infer)
        scores = measure(mixes, join().share(mixes, lambda part: diarize_all(diarizer, part)), 0.25)
        return {name: scores[name] for name in ("der", "missed", "false_alarm", "confusion", "frame_accuracy")}

    return validate


def _model(run: Run):
    from safetensors.torch import load_file

    from colabkit.pipelines.diarization.train.loop import build_model

    folder = run.folder_of("02_train")
    model = build_model(ModelConfig(**files.read_json(folder / "model.json")))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval()


def _diarizer(config: Config, run: Run) -> Diarizer:
    tuned = run.folder_of("03_tune") / "diarizer.json"
    return _torch_diarizer(_model(run), config.infer, **(tuned_in(files.read_json(tuned)) if tuned.exists() else {}))


def _torch_diarizer(model: Any, settings: InferConfig, **tuned: float) -> Diarizer:
    import torch

    device = next(model.parameters()).device

    def run_windows(waves: Any) -> tuple[Any, ...]:
        with torch.no_grad():
            return tuple(part.float().cpu().numpy() for part in model.eval()(torch.from_numpy(waves).to(device)))

    return Diarizer(run_windows, model.powerset.table_CS.cpu().numpy(), settings, **tuned)
