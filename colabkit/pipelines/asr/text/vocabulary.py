"""The characters a CTC model writes: made of the training texts, kept in the files transformers' tokenizer reads."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from colabkit.core import files
from colabkit.core.errors import DataError

PAD, UNKNOWN, DELIMITER = "[PAD]", "[UNK]", "|"
_TEXTS_AT_ONCE = 20_000


class Vocabulary:
    """Tokens by their index: blank, unknown, the delimiter of words, then single characters (code points of NFC).

    Combining marks are tokens of their own, so any spelling of a script is made of a few tokens and comes back whole.
    `blank` is the index of CTC's blank. Raises: DataError where these tokens are missing or one is there twice.
    """

    def __init__(self, tokens: Sequence[str], *, pad: str = PAD, unknown: str = UNKNOWN, delimiter: str = DELIMITER):
        self.tokens = tuple(tokens)
        self.indices = {token: i for i, token in enumerate(self.tokens)}
        missing = [token for token in (pad, unknown, delimiter) if token not in self.indices]
        if missing or len(self.indices) != len(self.tokens):
            raise DataError(
                "This is no vocabulary",
                got="a token that is there twice" if not missing else f"none {missing[0]}",
                expected=f"{pad}, {unknown}, {delimiter} and characters, each once",
                fix="make the vocabulary again from the training texts",
            )
        self.pad, self.unknown, self.delimiter_token = pad, unknown, delimiter
        self.blank, self.unknown_index, self.delimiter = (self.indices[token] for token in (pad, unknown, delimiter))
        self._specials = {t for t in self.tokens if len(t) > 1 and t != unknown}

    @classmethod
    def of(cls, characters: Iterable[str]) -> Vocabulary:
        """Make a vocabulary of characters; the same characters in any order make the same one."""
        return cls([PAD, UNKNOWN, DELIMITER, *sorted(set(characters) - {" ", DELIMITER})])

    def __len__(self) -> int:
        return len(self.tokens)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and (self.tokens, self.blank) == (other.tokens, other.blank)

    def __hash__(self) -> int:
        return hash(self.tokens)

    @property
    def characters(self) -> str:
        """Return all characters, without the special tokens."""
        return "".join(t for t in self.tokens if len(t) == 1 and t != self.delimiter_token)

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a clean text; a character that is not there becomes unknown."""
        return [
            self.delimiter if c == " " else self.indices.get(c, self.unknown_index)
            for c in " ".join(unicodedata.normalize("NFC", text).split())
        ]

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of tokens, as they stand: blanks are left out, repetitions are kept."""
        parts = (self.tokens[int(i)] for i in tokens)
        text = "".join(" " if t == self.delimiter_token else t for t in parts if t not in self._specials)
        return " ".join(text.split())

    def save(self, folder: Path) -> None:
        """Write vocab.json, tokenizer_config.json and special_tokens_map.json for Wav2Vec2CTCTokenizer."""
        folder = Path(folder)
        names = {"unk_token": self.unknown, "pad_token": self.pad, "bos_token": None, "eos_token": None}
        files.write_json(folder / "vocab.json", self.indices)
        files.write_json(folder / "special_tokens_map.json", {k: v for k, v in names.items() if v})
        files.write_json(
            folder / "tokenizer_config.json",
            {
                "tokenizer_class": "Wav2Vec2CTCTokenizer",
                **names,
                "word_delimiter_token": self.delimiter_token,
                "replace_word_delimiter_char": " ",
                "do_lower_case": False,
                "clean_up_tokenization_spaces": False,
                "model_max_length": 1_000_000_000,
            },
        )

    @classmethod
    def load(cls, folder: Path) -> Vocabulary:
        """Read what `save` or another CTC tokenizer of transformers wrote.

        Raises: StateError, DataError for damaged files.
        """
        folder = Path(folder)
        indices = files.read_json(folder / "vocab.json")
        config = (
            files.read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").exists() else {}
        )
        if not isinstance(indices, dict) or sorted(indices.values(), key=str) != sorted(range(len(indices)), key=str):
            raise DataError(
                "This is no vocabulary",
                got=f"{type(indices).__name__} of {len(indices)}",
                expected="{token: index} with every index from 0 once",
                where=folder / "vocab.json",
                fix="copy the model again; a vocabulary of several languages must be cut to one first",
            )

        def name(key: str, usual: str) -> str:
            found = config.get(key, usual)
            return found.get("content", usual) if isinstance(found, dict) else found

        tokens = sorted(indices, key=indices.get)
        usual_pad, usual_unknown = (PAD, UNKNOWN) if PAD in indices else ("<pad>", "<unk>")
        return cls(
            tokens,
            pad=name("pad_token", usual_pad),
            unknown=name("unk_token", usual_unknown),
            delimiter=name("word_delimiter_token", DELIMITER),
        )


def count_characters(texts: Iterable[str]) -> dict[str, int]:
    """Count the characters of all texts, spaces left out. One pass over any number of texts, with little memory."""
    counts: dict[int, int] = {}
    held: list[str] = []

    def add() -> None:
        points = np.frombuffer("".join(held).encode("utf-32-le", "surrogatepass"), np.uint32)
        for point, number in zip(*np.unique(points, return_counts=True), strict=True):
            counts[int(point)] = counts.get(int(point), 0) + int(number)
        held.clear()

    for text in texts:
        held.append(text)
        if len(held) == _TEXTS_AT_ONCE:
            add()
    add()
    return {chr(point): number for point, number in sorted(counts.items()) if chr(point) != " "}


def choose_characters(counts: dict[str, int], rare_fraction: float) -> tuple[Vocabulary, dict[str, int]]:
    """Return the vocabulary, and the characters left out as they make less than `rare_fraction` of all, with counts."""
    total = sum(counts.values())
    rare = {c: number for c, number in counts.items() if number < rare_fraction * total}
    return Vocabulary.of(counts.keys() - rare.keys()), rare
