"""Which files are a split: by every form a dataset card may have, else by names; and which of them an address means."""

from __future__ import annotations

from textwrap import dedent

import pytest

from colabkit.core.errors import UsageError
from colabkit.io.samples.hub_splits import _pattern, choose_split, find_splits

ADDRESS = "hub:org/name"


def card(yaml: str) -> str:
    return f"---\nlicense: mit\n{dedent(yaml).strip()}\n---\n# A dataset\n\nconfigs: none of this counts\n"


def shards(folder: str, split: str, num: int = 2) -> list[str]:
    return [f"{folder}/{split}-{i:05d}-of-{num:05d}.parquet" for i in range(num)]


@pytest.mark.parametrize(
    "form",
    [
        "data/train-*",
        '["data/train-*"]',
        "data/*.parquet",
        "data/**",
        "./data/train-*",
        "[data/train-00000-of-00002.parquet, data/train-00001*]",
        "{train: data/*}",
        "{train: [data/*]}",
        "[{split: train, path: data/*}]",
    ],
)
def test_a_pattern_alone_is_train(form):
    names = shards("data", "train") + ["README.md", "other/x.parquet"]
    text = card(f"configs:\n- config_name: default\n  data_files: {form}")
    assert find_splits(names, text) == {("default", "train"): shards("data", "train")}


def test_splits_as_a_mapping_and_as_a_list_of_split_and_path():
    names = [*shards("data", "train"), *shards("data", "test"), "extra/a.parquet", "extra/b.parquet"]
    wanted = {("default", "train"): shards("data", "train"), ("default", "test"): shards("data", "test") + names[4:]}
    as_mapping = (
        "configs:\n- config_name: default\n  data_files:\n    train: data/train-*\n    test: [data/test-*, 'extra/*']"
    )
    as_list = """
        configs:
        - config_name: default
          data_files:
          - split: train
            path: data/train-*
          - split: test
            path:
            - data/test-*
            - extra/*.parquet
        """
    assert find_splits(names, card(as_mapping)) == find_splits(names, card(as_list)) == wanted


def test_several_configs_and_folders_of_their_own():
    names = [
        *shards("en", "train"),
        *shards("en", "test"),
        *shards("de", "train"),
        "fr/train/0.parquet",
        "fr/dev/0.parquet",
    ]
    text = card("""
        configs:
        - config_name: en
          data_files: [{split: train, path: en/train-*}, {split: test, path: en/test-*}]
        - config_name: de
          data_dir: de
          data_files: train-*.parquet
        - config_name: fr
          data_dir: ./fr/
        - config_name: 2024
          data_files: de/*
        - config_name: nothing
          data_files: nowhere/*
        """)
    assert find_splits(names, text) == {
        ("en", "train"): shards("en", "train"),
        ("en", "test"): shards("en", "test"),
        ("de", "train"): shards("de", "train"),
        ("fr", "train"): ["fr/train/0.parquet"],
        ("fr", "dev"): ["fr/dev/0.parquet"],
        ("2024", "train"): shards("de", "train"),
    }


def test_a_config_without_a_name_or_a_split_without_one_has_the_usual():
    for files in ("a.parquet", "[{path: a.parquet}]"):
        assert find_splits(["a.parquet"], card(f"configs:\n- data_files: {files}")) == {
            ("default", "train"): ["a.parquet"]
        }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# no front matter",
        "---\nlicense: mit\n---\n",
        "---\n---\n",
        "---\nnever closed\n",
        "\udcff---\n",
        "---\nconfigs: [\n---\n",
        "---\n- a\n- b\n---\n",
        "---\njust words\n---\n",
        "---\n\tx: 1\n---\n",
        "---\nx: !!python/object:os.system\n---\n",
    ],
)
def test_a_card_that_cannot_be_read_leaves_it_to_the_names(text):
    assert find_splits(shards("data", "test"), text) == {("default", "test"): shards("data", "test")}


@pytest.mark.parametrize(
    "configs",
    [
        "",
        "words",
        "5",
        "{a: b}",
        "[words, 7]",
        "[{config_name: a}]",
        "[{data_files: []}]",
        "[{data_files: 5}]",
        "[{data_files: [1, 2]}]",
        "[{data_files: [{split: train}]}]",
        "[{data_files: {train: }}]",
        "[{data_files: {train: 5}}]",
        "[{data_files: gone/*.parquet}]",
        "[{data_files: '['}]",
        "[{data_files: '[z-a]'}]",
        "[{data_files: '[]'}]",
        "[{data_dir: 5}]",
        "[{data_dir: gone}]",
        "[{data_dir: .}]",
    ],
)
def test_configs_that_say_nothing_usable_leave_it_to_the_names(configs):
    names = shards("data", "test")
    assert find_splits(names, card(f"configs: {configs}")) == {("default", "test"): names}


def test_a_card_with_windows_line_ends_counts():
    text = card("configs:\n- config_name: x\n  data_files: a.parquet").replace("\n", "\r\n")
    assert find_splits(["a.parquet"], text) == {("x", "train"): ["a.parquet"]}


@pytest.mark.parametrize(
    "name, config, split",
    [
        ("data/train-00000-of-00010.parquet", "default", "train"),
        ("train-00000-of-00010.parquet", "default", "train"),
        ("data/train-00000-of-00001-6d5a8c5b5a5f0f1a.parquet", "default", "train"),
        ("data/validation.clean-00001-of-00002.parquet", "default", "validation.clean"),
        ("clean/train.100/0000.parquet", "clean", "train.100"),
        ("all/train.clean.100/0013.parquet", "all", "train.clean.100"),
        ("default/partial-train/0000.parquet", "default", "train"),
        ("en/train/0000.parquet", "en", "train"),
        ("train.parquet", "default", "train"),
        ("en/test-00000.parquet", "en", "test"),
        ("train/0000.tar", "default", "train"),
        ("data/0000.tar", "default", "data"),
        ("audio/en/dev/en_dev_0.tar", "en", "dev"),
        ("en/train_0001.tar", "en", "train"),
        ("sdm/train.part12.tar", "sdm", "train"),
        ("00017.tar", "default", "train"),
        ("TEST.PARQUET", "default", "TEST"),
        ("a.b/日本語-0001.tar", "a.b", "日本語"),
    ],
)
def test_names_tell_config_and_split(name, config, split):
    assert find_splits([name, "README.md", "x/y.json"], "") == {(config, split): [name]}


def test_files_of_one_split_are_together_in_their_order_and_other_files_are_none():
    names = [
        "clean/test/0000.parquet",
        "clean/test/0001.parquet",
        "clean/train.100/0000.parquet",
        "other/test/0000.parquet",
        "README.md",
        "data.csv",
        "clean/notes.txt",
        ".gitattributes",
        "script.py",
        "clean/train.100/state.json",
    ]
    assert find_splits(names, "") == {
        ("clean", "test"): names[:2],
        ("clean", "train.100"): names[2:3],
        ("other", "test"): names[3:4],
    }
    assert find_splits([], "") == {} and find_splits(["README.md"], "") == {}


def splits_of(*choices: str) -> dict:
    return {tuple(choice.split("/")): [choice + ".parquet"] for choice in choices}


LIBRI = splits_of("clean/test", "clean/train.100", "clean/train.360", "other/test", "all/train.clean.100")
ONE = splits_of("default/train", "default/test")
LANGUAGES = splits_of("en/train", "en/test", "de/train", "default/train", "default/all")
SINGLE = splits_of("default/data")


@pytest.mark.parametrize(
    "splits, wanted, found",
    [
        (ONE, "", "default/train"),
        (ONE, "test", "default/test"),
        (ONE, "default/test", "default/test"),
        (ONE, "default", "default/train"),
        (SINGLE, "", "default/data"),
        (SINGLE, "data", "default/data"),
        (SINGLE, "default", "default/data"),
        (LIBRI, "clean/train.100", "clean/train.100"),
        (LIBRI, "other", "other/test"),
        (LIBRI, "other/test", "other/test"),
        (LIBRI, "all", "all/train.clean.100"),
        (LANGUAGES, "", "default/train"),
        (LANGUAGES, "en", "en/train"),
        (LANGUAGES, "de", "de/train"),
        (LANGUAGES, "all", "default/all"),
        (LANGUAGES, "en/test", "en/test"),
        (splits_of("en/train"), "", "en/train"),
        (splits_of("en/dev"), "dev", "en/dev"),
    ],
)
def test_an_address_means_one_split(splits, wanted, found):
    assert choose_split(splits, [part for part in wanted.split("/") if part], ADDRESS) == [found + ".parquet"]


@pytest.mark.parametrize(
    "splits, wanted, what",
    [
        (LIBRI, "", "Cannot tell"),
        (LIBRI, "clean", "Cannot tell"),
        (LIBRI, "dirty", "no such part"),
        (LIBRI, "test", "no such part"),
        (LIBRI, "clean/train", "no such part"),
        (LIBRI, "train.100/clean", "no such part"),
        (LIBRI, "clean/train.100/more", "no such part"),
        (splits_of("default/a", "default/b"), "", "Cannot tell"),
        (splits_of("en/train", "de/train"), "", "Cannot tell"),
        (LANGUAGES, "test", "no such part"),
        (ONE, "Train", "no such part"),
    ],
)
def test_an_address_that_means_none_or_several_is_told_with_all_there_is(splits, wanted, what):
    with pytest.raises(UsageError) as caught:
        choose_split(splits, [part for part in wanted.split("/") if part], ADDRESS)
    error = caught.value
    assert what in error.what and error.where == ADDRESS
    assert all("/".join(part for part in choice if part != "default") in error.expected for choice in splits)
    assert choose_split(splits, error.fix.rpartition("NAME/")[2].split("/"), ADDRESS)  # what it proposes is a split


@pytest.mark.parametrize("wanted", [[], ["train"], ["a", "b"]])
def test_a_dataset_without_files_to_stream_is_told(wanted):
    with pytest.raises(UsageError) as caught:
        choose_split({}, wanted, ADDRESS)
    assert ".parquet" in caught.value.expected and caught.value.where == ADDRESS


@pytest.mark.parametrize(
    "glob, fits, does_not",
    [
        ("data/*", ["data/a", "data/a.b"], ["data/a/b", "xdata/a", "data"]),
        ("data/**", ["data/a", "data/a/b"], ["other/data/a"]),
        ("**/train-*", ["train-1", "a/train-1", "a/b/train-1"], ["a/train-1/b", "xtrain-1"]),
        ("**", ["a", "a/b"], []),
        ("a?c", ["abc", "a.c"], ["ac", "a/c", "abbc"]),
        ("[ab].x", ["a.x", "b.x"], ["c.x", "ab.x"]),
        ("[!ab].x", ["c.x"], ["a.x", "b.x"]),
        ("[0-9][0-9].x", ["07.x"], ["7.x", "0a.x"]),
        ("a.b", ["a.b"], ["axb"]),
        ("./a+b(c).x", ["a+b(c).x"], ["aab(c).x", "./a+b(c).x"]),
        ("*.parquet", ["a.parquet"], ["d/a.parquet", "a.parquet.txt"]),
        ("Zoë/*", ["Zoë/é"], ["Zoe/x"]),
    ],
)
def test_globs_fit_what_the_hub_says_they_fit(glob, fits, does_not):
    assert all(_pattern(glob).fullmatch(name) for name in fits)
    assert not any(_pattern(glob).fullmatch(name) for name in does_not)
