"""Whisper's own: its tokens and prompt, and writing with timestamps.

Axes: B sample, L token.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from colabkit.core.errors import DataError, UsageError

MOST_TOKENS = 448  # positions of the decoder, prompt included
NEAREST = {"kaa": "kk", "ky": "kk", "ug": "uz", "sah": "kk", "cv": "tt"}  # close relatives among Whisper's languages
Timed = tuple[str, float, float]  # text, start_seconds, end_seconds


class WhisperText:
    """Texts to Whisper's tokens and back. `language` is one of its codes, "" for models that know only English."""

    def __init__(self, tokenizer: Any, language: str):
        self.tokenizer, self.language = tokenizer, language
        prefix = {"task": "transcribe", "predict_timestamps": False} if language else {"predict_timestamps": False}
        tokenizer.set_prefix_tokens(language=language or None, **prefix)
        self.prompt = list(tokenizer.prefix_tokens)
        self.start, self.end = self.prompt[0], tokenizer.eos_token_id

    @classmethod
    def open(cls, name: str, language: str | None) -> WhisperText:
        """Read a model's tokens; language None: as the model says.

        Raises: UsageError for a language it does not know.
        """
        from colabkit.io.models.transformers_models import named_faults, quietly, transformers_class

        with quietly(), named_faults(name, what="model", setting="model.name", example="openai/whisper-small"):
            tokenizer = transformers_class("WhisperTokenizer").from_pretrained(name)
        vocabulary = tokenizer.get_vocab()
        if "<|startoftranscript|>" not in vocabulary:
            raise DataError(
                "The model's tokens are not Whisper's",
                got=f"{len(vocabulary)} tokens",
                expected="<|startoftranscript|> among them",
                where=name,
                fix="copy the whole model again",
            )
        if "<|transcribe|>" not in vocabulary or "<|en|>" not in vocabulary:
            return cls(tokenizer, "")
        language = language or tokenizer.language or "en"
        code = NEAREST.get(language, language) if f"<|{language}|>" not in vocabulary else language
        if f"<|{code}|>" not in vocabulary:
            known = sorted(token[2:-2] for token in vocabulary if token.startswith("<|") and _is_code(token[2:-2]))
            raise UsageError(
                "Whisper does not know this language",
                got=language,
                expected=", ".join(known),
                where="text.language",
                fix="--set text.language to the code of a close relative, or fine-tune w2v-BERT 2.0 or XLS-R",
            )
        return cls(tokenizer, code)

    def encode(self, text: str) -> list[int]:
        """Return what the decoder should write: the prompt after its first token, the text, and the end."""
        return [*self.prompt[1:], *self.tokenizer(text, add_special_tokens=False).input_ids, self.end]

    def decode(self, tokens: Any) -> str:
        """Return the text of tokens, without special ones."""
        return " ".join(self.tokenizer.decode([int(t) for t in tokens], skip_special_tokens=True).split())

    def shifted(self, labels_BL: Any, ignored: int) -> Any:
        """Return what the decoder reads: its start, then the targets but the last."""
        inputs_BL = labels_BL.roll(1, 1)
        inputs_BL[:, 0] = self.start
        return inputs_BL.masked_fill(inputs_BL == ignored, self.end)

    def prepare(self, model: Any) -> None:
        """Make a model write in this language when it is asked to generate; old models do not say by what tokens."""
        generation, ids = model.generation_config, self.tokenizer.get_vocab()
        generation.forced_decoder_ids = None
        generation.is_multilingual = bool(self.language)
        generation.no_timestamps_token_id = ids["<|notimestamps|>"]
        if self.language:
            generation.language, generation.task = self.language, "transcribe"
            languages = [token for token in ids if token.startswith("<|") and _is_code(token[2:-2])]
            generation.lang_to_id = {token: ids[token] for token in languages}
            generation.task_to_id = {task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")}

    def save(self, folder: Path) -> None:
        self.tokenizer.save_pretrained(Path(folder))


def write(model: Any, coder: WhisperText, inputs: dict[str, Any]) -> list[str]:
    """Return the texts of a collated batch of recordings of up to 30 s, each token the likeliest."""
    from colabkit.io.models.transformers_models import quietly

    length = min(MOST_TOKENS, model.config.max_target_positions) - len(coder.prompt) - 1
    with quietly():
        tokens_BL = model.generate(**inputs, **_language(coder), max_new_tokens=length, do_sample=False, num_beams=1)
    return [coder.decode(tokens) for tokens in tokens_BL]


def write_timed(model: Any, coder: WhisperText, inputs: dict[str, Any]) -> list[Timed]:
    """Return the segments of one recording of any length with their times."""
    from colabkit.io.models.transformers_models import quietly

    with quietly():
        made = model.generate(
            **inputs, **_language(coder), return_timestamps=True, return_segments=True, do_sample=False, num_beams=1
        )
    found = []
    for segment in made["segments"][0]:
        if text := coder.decode(segment["tokens"]):
            found.append((text, float(segment["start"]), float(segment["end"])))
    return found


def _language(coder: WhisperText) -> dict[str, str]:
    return {"language": coder.language, "task": "transcribe"} if coder.language else {}


def _is_code(word: str) -> bool:
    """Tell a language's code from other special tokens."""
    return word in ("yue", "haw", "jw") or (len(word) == 2 and word.isalpha())
