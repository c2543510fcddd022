"""WER and CER of held-out speech, by the decoder that the settings name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from colabkit.core.errors import DataError
from colabkit.io.samples.listing import Listing
from colabkit.pipelines.asr.config import EvaluateConfig
from colabkit.pipelines.asr.evaluate.decode import BeamDecoder
from colabkit.pipelines.asr.evaluate.language_model import NgramModel
from colabkit.pipelines.asr.evaluate.metrics import Scores, score
from colabkit.runs.run import Run

LANGUAGE_MODEL = "words.arpa"


def evaluate_model(
    config: EvaluateConfig, model: Path, listing: Listing, run: Run, *, capacity: Callable[[float], int]
) -> tuple[Scores, list[str]]:
    """Transcribe the test split, or so many samples of it, with a model's folder.

    Returns the scores and the samples' names. `capacity(seconds)`: samples at once. With the n-gram decoder its model
    of the training texts is written to the run's output.
    Raises: DataError when not one sample can be read.
    """
    import torch

    from colabkit.pipelines.asr.model.hear import hear
    from colabkit.pipelines.asr.model.recognizer import load_model

    recognizer = load_model(model)
    recognizer.model.to("cuda" if torch.cuda.is_available() else "cpu")
    split = listing["test"]
    numbers = np.sort(np.random.default_rng(0).permutation(len(split))[: config.num_samples]).tolist()
    with run.progress(len(numbers), "evaluate", unit="samples") as progress:
        heard = hear(
            recognizer,
            split,
            numbers,
            capacity=capacity,
            problem=run.problem,
            workers=split.num_readers,
            decode=choose_decoder(config, recognizer, listing, run),
            advance=progress.update,
        )
    whole = [(number, one.text) for number, one in zip(numbers, heard, strict=True) if one is not None]
    if not whole:
        raise DataError(
            "No test sample can be read",
            got=f"{len(numbers)} broken ones",
            expected="at least one whole one",
            where=split.name,
            fix="the report says why each is broken",
        )
    scores = score(
        [split.texts[number] for number, _ in whole], [text for _, text in whole], confidence=config.confidence
    )
    return scores, [split.names[number] for number, _ in whole]


def choose_decoder(
    config: EvaluateConfig, recognizer: Any, listing: Listing, run: Run
) -> Callable[[np.ndarray], str] | None:
    """Return what makes a text of log-probabilities (frame, token); None: the likeliest token of each frame."""
    if config.decoder == "greedy":
        return None
    if not recognizer.is_ctc:
        run.choose(
            "evaluate.decoder", "greedy", f"{config.decoder} is for CTC models; {recognizer.kind} writes by itself"
        )
        return None
    words = None
    if config.decoder == "ngram":
        words = NgramModel.train(listing["train"].texts, order=config.ngram_order)
        words.save(run.output / LANGUAGE_MODEL)
    search = BeamDecoder(
        recognizer.coder,
        width=config.beam_width,
        language_model=words,
        lm_weight=config.lm_weight,
        word_bonus=config.word_bonus if words else 0.0,
    )
    return lambda log_probs_TC: search.decode(log_probs_TC).text
