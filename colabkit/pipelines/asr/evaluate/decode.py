"""From CTC log probabilities to words with times: the best path, or a prefix beam search with a word n-gram model.

T frames, C classes. Sources: A. Graves et al. 2006, Connectionist Temporal Classification; A. Hannun et al. 2014,
First-Pass Large Vocabulary Continuous Speech Recognition using Bi-Directional Recurrent DNNs, algorithm 1 (prefix
search with a language model at word ends).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from colabkit.core.errors import UsageError
from colabkit.pipelines.asr.evaluate.language_model import NgramModel, State
from colabkit.pipelines.asr.text.vocabulary import Vocabulary

_NEVER = -math.inf
LEAST_LOG_PROB = -7.0  # of a token in a frame, in beam search: what is less likely is not followed
FRAME_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Timed:
    """A token's text or a word, when it was said, and the mean probability of its frames."""

    text: str
    start_seconds: float
    end_seconds: float
    probability: float

    def to_dict(self) -> dict:
        return {
            "text": self.text,
            "start_seconds": round(self.start_seconds, 3),
            "end_seconds": round(self.end_seconds, 3),
            "probability": round(self.probability, 4),
        }


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What was heard.

    `score` is a log probability: of the best path (greedy), or of all paths with the language model.
    """

    text: str
    score: float
    tokens: tuple[Timed, ...]
    words: tuple[Timed, ...]


def greedy(
    log_probs_TC: np.ndarray,
    vocabulary: Vocabulary,
    *,
    frame_seconds: float = FRAME_SECONDS,
    start_seconds: float = 0.0,
) -> Hypothesis:
    """Return the text of the best path, with times.

    `start_seconds` is where the first frame lies. Raises: UsageError.
    """
    log_probs_TC = _checked(log_probs_TC, vocabulary)
    path = log_probs_TC.argmax(1)
    best = log_probs_TC[np.arange(len(path)), path]
    return _timed(path, best, vocabulary, float(best.sum()), frame_seconds, start_seconds)


class _Prefix:
    """A beginning of a transcript in the tree of all that were looked at, with what the language model made of it."""

    __slots__ = ("blank", "children", "continues", "extra", "nonblank", "parent", "state", "token", "word")

    def __init__(self, parent: _Prefix | None, token: int, state: State, word: str, extra: float):
        self.parent, self.token, self.children = parent, token, {}
        # words so far, the word begun, weighted scores of words so far
        self.state, self.word, self.extra = state, word, extra
        # log probability of all paths so far that end in a blank, or in the last token
        self.blank = self.nonblank = _NEVER

    def tokens(self) -> list[int]:
        found, prefix = [], self
        while prefix.parent is not None:
            found.append(prefix.token)
            prefix = prefix.parent
        return found[::-1]


class BeamDecoder:
    """Prefix beam search: the probabilities of all paths that give the same text are added up.

    With a language model, each word that ends adds lm_weight * log P(word | words before) + word_bonus. Safe for many
    threads as long as each call is for itself: it keeps nothing.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        width: int = 32,
        language_model: NgramModel | None = None,
        lm_weight: float = 0.5,
        word_bonus: float = 1.0,
        least_log_prob: float = LEAST_LOG_PROB,
    ):
        if width < 1:
            raise UsageError(
                "This is no width of a beam",
                got=width,
                expected="1 or more",
                where="evaluate.beam_width",
                fix="set evaluate.beam_width=32",
            )
        self.vocabulary, self.width, self.language_model = vocabulary, width, language_model
        self.lm_weight, self.word_bonus, self.least_log_prob = lm_weight, word_bonus, least_log_prob

    def decode(
        self,
        log_probs_TC: np.ndarray,
        *,
        frame_seconds: float = FRAME_SECONDS,
        start_seconds: float = 0.0,
    ) -> Hypothesis:
        """Return the best text, with times from its best path through the frames."""
        log_probs_TC = _checked(log_probs_TC, self.vocabulary)
        score, tokens = self.search(log_probs_TC)[0]
        path, best = align(log_probs_TC, tokens, self.vocabulary.blank)
        return _timed(path, best, self.vocabulary, score, frame_seconds, start_seconds)

    def search(self, log_probs_TC: np.ndarray) -> list[tuple[float, list[int]]]:
        """Return (log probability with the language model, tokens) of what is left in the beam, best first."""
        blank = self.vocabulary.blank
        root = _Prefix(None, -1, self.language_model.begin() if self.language_model else (), "", 0.0)
        root.blank = 0.0
        beam = [root]
        likely = log_probs_TC >= self.least_log_prob
        likely[np.arange(len(likely)), log_probs_TC.argmax(1)] = True  # or a frame could end all of them
        for t, frame in enumerate(log_probs_TC):
            tokens = [(c, float(frame[c])) for c in np.flatnonzero(likely[t]).tolist() if c != blank]
            beam = self._step(beam, sorted(tokens, key=lambda token: -token[1]), frame.tolist())
        ended = [(_add(p.blank, p.nonblank) + self._ending(p), p.tokens()) for p in beam]
        return sorted(ended, key=lambda pair: (-pair[0], pair[1]))

    def _step(self, beam: list[_Prefix], tokens: list[tuple[int, float]], frame: list[float]) -> list[_Prefix]:
        """Return the best prefixes after one more frame; `tokens` are those worth following, likeliest first."""
        blank, delimiter = frame[self.vocabulary.blank], self.vocabulary.delimiter
        both = {prefix: _add(prefix.blank, prefix.nonblank) for prefix in beam}
        gathered = {}  # (ending in a blank, ending in the last token)
        for prefix in beam:
            nonblank = prefix.nonblank + frame[prefix.token] if prefix.parent is not None else _NEVER
            if prefix.parent in both and frame[prefix.token] >= self.least_log_prob:
                repeats = prefix.token == prefix.parent.token  # a blank must stand between
                nonblank = _add(
                    nonblank, (prefix.parent.blank if repeats else both[prefix.parent]) + frame[prefix.token]
                )
            gathered[prefix] = (both[prefix] + blank, nonblank)
        scored = [(_add(*new) + prefix.extra, prefix) for prefix, new in gathered.items()]
        # A prefix that is new gets all it has from its beginning: what comes below these is not kept anyway.
        least = max(score for score, _ in scored) + 2 * self.least_log_prob
        if len(scored) >= self.width:
            least = max(least, sorted((score for score, _ in scored), reverse=True)[self.width - 1])
        for prefix in beam:
            for token, log_prob in tokens:
                ends_word = token == delimiter and self.language_model is not None  # which changes what is added
                if not ends_word and both[prefix] + log_prob + prefix.extra < least:
                    if self.language_model is None:
                        break
                    continue
                before = prefix.blank if token == prefix.token else both[prefix]
                child = self._child(prefix, token)
                if before > _NEVER and child not in both and before + log_prob + child.extra >= least:
                    gathered[child] = (_NEVER, before + log_prob)
                    scored.append((before + log_prob + child.extra, child))
        if len(scored) > self.width:
            scored.sort(key=lambda pair: -pair[0])
            del scored[self.width :]
        kept = [prefix for score, prefix in scored if score > _NEVER]
        for prefix in kept:
            prefix.blank, prefix.nonblank = gathered[prefix]
        return kept

    def _child(self, prefix: _Prefix, token: int) -> _Prefix:
        child = prefix.children.get(token)
        if child is None:
            state, word, extra = prefix.state, prefix.word, prefix.extra
            if token == self.vocabulary.delimiter:
                if word and self.language_model is not None:
                    log_prob, state = self.language_model.score(state, word)
                    extra += self.lm_weight * log_prob + self.word_bonus
                word = ""
            else:
                word += self.vocabulary.tokens[token]
            child = prefix.children[token] = _Prefix(prefix, token, state, word, extra)
        return child

    def _ending(self, prefix: _Prefix) -> float:
        """Return what the language model makes of a transcript that ends here."""
        if self.language_model is None:
            return 0.0
        extra, state = prefix.extra, prefix.state
        if prefix.word:
            log_prob, state = self.language_model.score(state, prefix.word)
            extra += self.lm_weight * log_prob + self.word_bonus
        return extra + self.lm_weight * self.language_model.end(state)


def align(log_probs_TC: np.ndarray, tokens: list[int], blank: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the best path through the frames that gives these tokens, and its log probabilities. Shapes: (T,), (T,).

    What torchaudio.functional.forced_align gives, which is the judge in the tests: beams end in numpy, on the CPU.
    Raises: UsageError where there are too few frames for them.
    """
    num_frames = len(log_probs_TC)
    states = np.full(2 * len(tokens) + 1, blank)
    states[1::2] = tokens
    skips = np.zeros(len(states), bool)  # over a blank, between tokens that differ
    skips[3::2] = states[3::2] != states[1:-2:2]
    emitted = log_probs_TC[:, states]
    score = np.full(len(states), _NEVER)
    score[:2] = emitted[0, :2] if num_frames else _NEVER
    came = np.zeros((num_frames, len(states)), np.int8)
    for t in range(1, num_frames):
        options = np.full((3, len(states)), _NEVER)
        options[0], options[1, 1:] = score, score[:-1]
        options[2, 2:] = np.where(skips[2:], score[:-2], _NEVER)
        came[t] = options.argmax(0)
        score = options.max(0) + emitted[t]
    place = len(states) - 1 if len(states) == 1 or score[-1] >= score[-2] else len(states) - 2
    if num_frames and score[place] == _NEVER:
        raise UsageError(
            "The tokens do not fit into the frames",
            got=f"{len(tokens)} tokens in {num_frames} frames",
            expected="a frame a token, and one more between equal ones",
            fix="pass the text of this audio",
        )
    path = np.empty(num_frames, np.int64)
    for t in range(num_frames - 1, -1, -1):
        path[t] = states[place]
        place -= int(came[t, place])
    return path, log_probs_TC[np.arange(num_frames), path]


def _timed(
    path: np.ndarray,
    log_probs: np.ndarray,
    vocabulary: Vocabulary,
    score: float,
    frame_seconds: float,
    start_seconds: float,
) -> Hypothesis:
    """Cut a path into tokens, and these into words."""
    edges = np.flatnonzero(np.diff(path)) + 1
    tokens: list[tuple[int, Timed]] = []
    for first, stop in zip([0, *edges], [*edges, len(path)], strict=True):
        if stop > first and path[first] != vocabulary.blank:
            token = int(path[first])
            tokens.append(
                (
                    token,
                    Timed(
                        " " if token == vocabulary.delimiter else vocabulary.tokens[token],
                        start_seconds + first * frame_seconds,
                        start_seconds + stop * frame_seconds,
                        float(np.exp(log_probs[first:stop].mean())),
                    ),
                )
            )
    words, held = [], []
    for token, timed in [*tokens, (vocabulary.delimiter, None)]:
        if token != vocabulary.delimiter:
            held.append(timed)
        elif held:
            words.append(
                Timed(
                    "".join(t.text for t in held),
                    held[0].start_seconds,
                    held[-1].end_seconds,
                    float(np.mean([t.probability for t in held])),
                )
            )
            held = []
    return Hypothesis(" ".join(w.text for w in words), score, tuple(t for _, t in tokens), tuple(words))


def _checked(log_probs_TC: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    log_probs_TC = np.asarray(log_probs_TC, np.float32)
    if log_probs_TC.ndim != 2 or log_probs_TC.shape[1] < len(vocabulary):
        raise UsageError(
            "Cannot decode these",
            got=f"shape {log_probs_TC.shape}",
            expected=f"(frame, {len(vocabulary)})",
            fix="pass the log probabilities of one sample, from the model this vocabulary belongs to",
        )
    if np.isnan(log_probs_TC).any():
        raise UsageError(
            "Cannot decode these",
            got="log probabilities that are not a number",
            expected="finite ones",
            fix="look at the training's loss: the weights are not finite",
        )
    return log_probs_TC[:, : len(vocabulary)]


def _add(a: float, b: float) -> float:
    """Return log(exp(a) + exp(b))."""
    if a < b:
        a, b = b, a
    return a + math.log1p(math.exp(b - a)) if b > _NEVER else a
