"""The text step: every transcript cleaned, the vocabulary made of the training texts alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from colabkit.core.errors import DataError
from colabkit.core.progress import Progress
from colabkit.core.teller import Teller
from colabkit.io.samples.index import Text
from colabkit.io.samples.listing import Listing, Split
from colabkit.pipelines.asr.data.sources import Aside
from colabkit.pipelines.asr.data.texts import write_texts
from colabkit.pipelines.asr.text.cleaner import Cleaner, UnusableTextError
from colabkit.pipelines.asr.text.vocabulary import Vocabulary, choose_characters, count_characters


@dataclass(frozen=True)
class Cleaned:
    """A listing with clean texts, the vocabulary, and what was found on the way.

    kept: of each split, the numbers of its samples in the listing before. characters: how often each stands in the
    training texts. rare: those left out. unknown: of validation and test, characters outside the vocabulary with
    counts.
    """

    listing: Listing
    vocabulary: Vocabulary
    kept: dict[str, np.ndarray]
    left_aside: dict[str, int]
    characters: dict[str, int]
    rare: dict[str, int]
    unknown: dict[str, dict[str, int]]

    def save(self, folder: Path) -> None:
        """Write texts.safetensors and the vocabulary's files; `open_texts` and `Vocabulary.load` read them."""
        write_texts(folder / "texts.safetensors", self.kept, self.listing)
        self.vocabulary.save(folder)

    def to_dict(self) -> dict:
        return {
            "num_characters": len(self.vocabulary.characters),
            "left_aside": self.left_aside,
            "rare": self.rare,
            "unknown": self.unknown,
            "characters": self.characters,
        }


def clean_listing(
    listing: Listing,
    cleaner: Cleaner,
    teller: Teller,
    *,
    rare_fraction: float = 0.0,
) -> Cleaned:
    """Clean all texts of a listing, and make the vocabulary of those of train.

    Samples with unusable texts are left aside, and those of train with rare characters; those of validation and test
    stay, with characters outside the vocabulary unknown. Raises: DataError where a split loses all its samples.
    """
    for choice in cleaner.choices:
        teller.choose(*choice)
    aside = Aside(teller)
    kept, texts = {}, {}
    with teller.progress(sum(len(s) for s in listing.splits.values()), "text", unit="samples") as progress:
        for name, split in listing.splits.items():
            kept[name], texts[name] = _clean_split(split, cleaner, aside, progress)
    characters = count_characters(texts["train"])
    vocabulary, rare = choose_characters(characters, rare_fraction)
    if rare:
        kept["train"], texts["train"] = _without_rare(listing["train"], kept["train"], texts["train"], set(rare), aside)
    aside.finish()
    unknown = {name: _unknown(texts[name], vocabulary) for name in listing.splits if name != "train"}
    for name, found in unknown.items():
        if found:
            teller.problem(
                f"{sum(found.values())} characters of {name}",
                "the model cannot write "
                f"{' '.join(list(found)[:20])}: they are not in the training texts and count as errors",
            )
    splits = {name: split.take(kept[name], Text.of(texts[name])) for name, split in listing.splits.items()}
    for name, split in splits.items():
        if not len(split):
            reasons = ", ".join(f"{n} because {reason}" for reason, n in aside.counts.most_common(3))
            raise DataError(
                f"No text of {name} can be used",
                got=f"{len(listing[name])} samples; left aside are {reasons}",
                expected="at least one usable text",
                where="text",
                fix="look at data.columns=text=COLUMN, text.language, text.digits and text.rare_fraction",
            )
    return Cleaned(listing.replace(splits), vocabulary, kept, dict(aside.counts), characters, rare, unknown)


def _clean_split(split: Split, cleaner: Cleaner, aside: Aside, progress: Progress) -> tuple[np.ndarray, list[str]]:
    numbers, texts = [], []
    for i in range(len(split)):
        try:
            texts.append(cleaner.clean(split.texts[i]))
            numbers.append(i)
        except UnusableTextError as error:
            aside(split.names[i], error.reason, "" if error.got is None else repr(error.got)[:80])
        if i % 1000 == 999:
            progress.update(1000)
    progress.update(len(split) % 1000)
    return np.array(numbers, np.int64), texts


def _without_rare(
    split: Split, kept: np.ndarray, texts: list[str], rare: set[str], aside: Aside
) -> tuple[np.ndarray, list[str]]:
    stays = [not rare.intersection(text) for text in texts]
    for number, text, stay in zip(kept.tolist(), texts, stays, strict=True):
        if not stay:
            aside(split.names[number], "it holds a rare character", " ".join(sorted(rare.intersection(text))))
    return kept[np.array(stays, bool)], [text for text, stay in zip(texts, stays, strict=True) if stay]


def _unknown(texts: list[str], vocabulary: Vocabulary) -> dict[str, int]:
    counts = count_characters(texts)
    return dict(Counter({c: n for c, n in counts.items() if c not in vocabulary.indices}).most_common())
