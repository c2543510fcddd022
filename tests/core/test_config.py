"""Tests of colabkit.core.config: text and values of all kinds, all faults at once, and what counts as the same."""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy
import pytest

from colabkit.core.config import (
    KEEPS_RESULT,
    Formerly,
    build,
    coerce,
    describe,
    differences,
    digest,
    flat,
    identity_settings,
    renamed,
    to_dict,
    with_settings,
)
from colabkit.core.errors import UsageError
from colabkit.pipelines import discover


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    steps: Annotated[int, "how many"] = 10
    rate: Annotated[float, "how fast"] = 0.5
    name: Annotated[str, "called so"] = "x"
    minutes: Annotated[float | None, "how long"] = None
    kind: Annotated[Literal["auto", "fast", "slow"], "which"] = "auto"
    tags: Annotated[tuple[str, ...], "words"] = ("a", "b")
    span: Annotated[tuple[float, float], "from, to"] = (1.0, 2.0)
    grid: Annotated[tuple[tuple[int, int], ...], "pairs"] = ((1, 2),)
    shown: Annotated[bool, "to be seen", KEEPS_RESULT] = True

    def faults(self):
        if self.steps < 1:
            yield f"steps: got {self.steps}, expected at least 1"
        if self.rate <= 0:
            yield f"rate: got {self.rate}, expected more than 0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    train: Annotated[Inner, "training"] = field(default_factory=lambda: Inner(steps=3, name="own"))
    test: Annotated[Inner, "testing"] = field(default_factory=Inner)
    hidden: Annotated[Inner, "logging", KEEPS_RESULT] = field(default_factory=Inner)
    seed: Annotated[int, "dice"] = 0

    def faults(self):
        if self.train.steps > 1000 * self.test.steps:
            yield "train.steps: too many for test.steps"


@pytest.mark.parametrize(
    ("kind", "good"),
    [
        (
            int,
            {
                "5": 5,
                "-3": -3,
                "+3": 3,
                "1_000": 1000,
                "1e5": 100_000,
                "5.0": 5,
                5.0: 5,
                numpy.int64(7): 7,
                "0": 0,
                "99999999999999999999": 99999999999999999999,
            },
        ),
        (float, {"1e-3": 0.001, ".5": 0.5, "-2": -2.0, 3: 3.0, "5_0": 50.0, numpy.float32(0.5): 0.5}),
        (bool, {"true": True, "False": False, "YES": True, "0": False, "no": False, True: True}),
        (str, {"": "", "5": "5", "a=b": "a=b", "ü": "ü", Path("/a/b"): "/a/b"}),
        (float | None, {"none": None, "": None, None: None, "null": None, "2": 2.0}),
        (Literal["auto", "fast"], {"auto": "auto", "fast": "fast"}),
        (Literal[1, 2], {1: 1, "2": 2}),
        (
            tuple[str, ...],
            {"a,b": ("a", "b"), "": (), "a": ("a",), "[a, b]": ("a", "b"), '["a", "b"]': ("a", "b"), ("x",): ("x",)},
        ),
        (tuple[float, float], {"1,2": (1.0, 2.0), "(1, 2)": (1.0, 2.0), (3, 4): (3.0, 4.0)}),
        (tuple[tuple[int, int], ...], {((1, 2), (3, 4)): ((1, 2), (3, 4))}),
    ],
)
def test_coerce_takes(kind, good):
    for value, wanted in good.items():
        got = coerce(value, kind)
        assert got == wanted and type(got) is type(wanted), value
    assert coerce([1, 2], tuple[float, float]) == (1.0, 2.0)


@pytest.mark.parametrize(
    ("kind", "bad"),
    [
        (int, ["", "x", "1.5", 1.5, "nan", "inf", None, True, [1], b"5", "1e400", "--5", "5 6", math.nan, math.inf]),
        (float, ["", "x", "nan", "inf", "-inf", "1,5", None, True, [1], math.nan, 10**400, b"1"]),
        (bool, ["", "x", "2", 1, 0, None, "on"]),
        (str, [5, None, 1.5, b"x", ["a"], True]),
        (float | None, ["x", "nan", True]),
        (Literal["auto", "fast"], ["Auto", "", None, 5]),
        (Literal[1, 2], [True, "3", 1.0]),
        (tuple[str, ...], [5, None, {"a": 1}]),
        (tuple[float, float], ["1", "1,2,3", "a,b", "", (1,), "1,"]),
    ],
)
def test_coerce_refuses_and_says_what_it_got(kind, bad):
    for value in bad:
        with pytest.raises(ValueError) as caught:
            coerce(value, kind)
        assert str(caught.value).startswith("got ") and "expected" in str(caught.value), value


def text_of(value) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else "none" if value is None else str(value)


def test_random_settings_as_text_as_values_and_as_json_are_the_same():
    dice = random.Random(0)
    for _ in range(200):
        inner = Inner(
            steps=dice.randrange(1, 10**9),
            rate=dice.choice([dice.random() + 1e-9, 1e-300, 1e300]),
            name=dice.choice(["", "a b", "x=y", "ü", "none"]),
            minutes=dice.choice([None, dice.random()]),
            kind=dice.choice(["auto", "fast", "slow"]),
            shown=dice.random() < 0.5,
            tags=tuple(dice.choice("abc") for _ in range(dice.randrange(4))),
            span=(dice.random(), -dice.random()),
        )
        config = Whole(test=inner)
        values = {name: getattr(inner, name) for name in Inner.__dataclass_fields__ if name != "grid"}
        by_text = with_settings(Whole(), [f"test.{name}={text_of(value)}" for name, value in values.items()])
        by_value = with_settings(Whole(), {f"test.{name}": value for name, value in values.items()})
        by_json = build(Whole, json.loads(json.dumps(to_dict(config))))
        assert by_text == by_value == by_json == config
        assert digest(identity_settings(by_json)) == digest(identity_settings(config))
        assert {name for name, _, _ in differences(config, Whole())} == {
            f"test.{name}" for name, value in values.items() if value != getattr(Inner(), name)
        }


def test_random_rubbish_is_refused_with_our_error_or_taken():
    dice = random.Random(1)
    rubbish = [
        "",
        "x",
        "-1",
        "1e999",
        "nan",
        None,
        True,
        -1,
        10**400,
        [],
        {},
        {"steps": {}},
        {"a": {"b": 1}},
        object(),
        b"\xff",
        (None,),
        [[1, 2], [3]],
        "=",
        "\0",
        "9" * 5000,
        {1: 2},
    ]
    keys = [*Inner.__dataclass_fields__, "train", "test", "seed", "", "stepz", "a.b"]
    for _ in range(2000):
        data = {dice.choice(keys): dice.choice([*rubbish, {dice.choice(keys): dice.choice(rubbish)}]) for _ in range(3)}
        try:
            config = build(Whole, data)
        except UsageError as error:
            assert error.fix and error.exit_code == 2 and str(error)
        else:
            assert not list(config.faults()) and build(Whole, to_dict(config)) == config


def test_all_faults_are_told_together():
    with pytest.raises(UsageError) as caught:
        build(Whole, {"train": {"stepz": 1, "rate": "fast", "steps": 0}, "tset": {}, "test": 5, "seed": "x"})
    message = str(caught.value)
    for words in (
        "train.stepz: no such setting; did you mean steps?",
        "train.rate: got 'fast', expected a number",
        "train.steps: got 0, expected at least 1",
        "tset: no such setting; did you mean test?",
        "test: got 5, expected settings such as test.steps=...",
        "seed: got 'x', expected a whole number",
    ):
        assert message.count(words) == 1, message
    assert message.count("train.rate") == 1 and "correct them" in message
    with pytest.raises(UsageError) as caught:  # a value that cannot be read is not judged by the rules too
        build(Whole, {"train": {"steps": "x"}}, base=Whole(train=Inner(steps=0)))
    assert str(caught.value).count("train.steps") == 1


def test_rules_of_sections_and_across_sections():
    with pytest.raises(UsageError, match="train.steps: too many") as caught:
        with_settings(Whole(), ["train.steps=5000", "test.steps=1"])
    assert "correct it" in caught.value.fix


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("steps=5", "did you mean train.steps or test.steps or hidden.steps?"),
        ("trian.steps=5", "did you mean train?"),
        ("train.stesp=5", "did you mean steps?"),
        ("sed=1", "did you mean seed?"),
        ("train.qqqq=1", "there are steps, rate"),
        ("train.kind=fsat", "did you mean fast?"),
        ("train=5", "expected settings such as train.steps=..."),
        ("seed.x=5", "seed: got {'x': '5'}"),
        ("a..b=1", "a: no such setting"),
    ],
)
def test_did_you_mean(setting, words):
    with pytest.raises(UsageError) as caught:
        with_settings(Whole(), [setting])
    assert words in str(caught.value)


def test_settings_text():
    for bad in ("train.steps", "=5", ""):
        with pytest.raises(UsageError, match="NAME=VALUE|NAME"):
            with_settings(Whole(), [bad])
    assert with_settings(Whole(), " train.name = a=b ").train.name == "a=b"
    assert with_settings(Whole(), ["seed=1", "seed=2"]).seed == 2
    assert with_settings(Whole(), ()) == Whole()
    for both in (["train=5", "train.steps=3"], ["train.steps=3", "train=5"]):
        with pytest.raises(UsageError, match="train"):
            with_settings(Whole(), both)


def test_what_is_not_named_stays():
    assert build(Whole, {"train": {"rate": 1}}).train == Inner(steps=3, name="own", rate=1.0)
    base = Whole(test=Inner(steps=77), seed=4)
    changed = with_settings(base, ["test.rate=0.25"])
    assert changed.test.steps == 77 and changed.seed == 4 and base.test.rate == 0.5
    assert differences(changed, base) == [("test.rate", 0.5, 0.25)]


def test_identity_leaves_out_what_keeps_the_result():
    names = set(identity_settings(Whole()))
    assert names == {n for n in flat(Whole()) if not n.endswith(".shown") and not n.startswith("hidden.")}
    assert identity_settings(Whole()) == json.loads(json.dumps(identity_settings(Whole()))), "as a record gives it back"
    assert flat(Whole())["test.grid"] == [[1, 2]]


def test_describe_names_everything_in_words():
    rows = {row[0]: row[1:] for row in describe(Whole)}
    assert list(rows) == list(flat(Whole()))
    assert rows["test.steps"] == ("a whole number", 10, "how many") and rows["train.kind"][0] == "auto | fast | slow"
    assert rows["test.minutes"][0] == "a number or none"


def test_digest_does_not_depend_on_order():
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 1, "b": [3]})


@pytest.mark.parametrize("pipeline", discover(), ids=lambda p: p.name)
def test_every_setting_of_every_pipeline_has_help_and_every_preset_is_sound(pipeline):
    rows = describe(pipeline.config_type)
    assert rows and [row[0] for row in rows if len(row[3].strip()) < 4] == []
    for preset in pipeline.presets.values():
        config = build(pipeline.config_type, {}, base=preset())
        assert build(pipeline.config_type, to_dict(config)) == config, "config.json must give the same settings back"
        assert preset.__doc__


# --- settings that had another name ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    batch: Annotated[int, "samples", Formerly("windows"), Formerly("size")] = 8
    at_once: Annotated[int | None, "samples", KEEPS_RESULT, Formerly("micro")] = None

    def faults(self):
        if self.batch < 1:
            yield f"batch: got {self.batch}, expected at least 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Renaming:
    train: Annotated[Section, "training"] = field(default_factory=Section)


@pytest.mark.parametrize("given, name", [(["train.windows=3"], "windows"), ({"train.size": 3}, "size")])
def test_a_former_name_is_taken_with_a_hint(given, name):
    said = []
    config = with_settings(Renaming(), given, say=said.append)
    assert config == Renaming(train=Section(batch=3))
    assert said == [f"  hint: train.{name} is called train.batch now; it is taken as that"]
    assert build(Renaming, {"train": {name: "3"}}, say=said.append) == config and len(said) == 2
    assert with_settings(Renaming(), ["train.batch=3"], say=said.append) == config and len(said) == 2


def test_what_is_given_under_a_former_name_is_judged_as_any_other():
    for given, words in (
        (["train.windows=0"], "train.batch: got 0"),
        (["train.windows=many"], "train.batch: got 'many'"),
        (["train.windows=3", "train.batch=4"], "train.windows: is called train.batch now, which is given"),
        (["train.window=3"], "train.window: no such setting"),
    ):
        with pytest.raises(UsageError) as told:
            with_settings(Renaming(), given, say=lambda text: None)
        assert words in str(told.value)


def test_former_names_are_known_for_records():
    assert renamed(Renaming) == {
        "train.windows": "train.batch",
        "train.size": "train.batch",
        "train.micro": "train.at_once",
    }
    assert identity_settings(Renaming()) == {"train.batch": 8} and "windows" not in str(describe(Renaming))
    assert renamed(Whole) == {}


@pytest.mark.parametrize("pipeline", discover(), ids=lambda pipeline: pipeline.name)
def test_no_setting_takes_the_former_name_of_another(pipeline):
    names = {row[0] for row in describe(pipeline.config_type)}
    former = renamed(pipeline.config_type)
    assert not names & former.keys() and set(former.values()) <= names
