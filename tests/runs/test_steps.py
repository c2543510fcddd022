"""Tests of colabkit.runs.steps: every decision and its reason, and a kill before each single file operation."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from colabkit.core.errors import ChangedError, StateError, UsageError
from colabkit.runs.steps import STARTED, Ledger, Sections, find, select, step

GROWN = [("02_grow", unit) for unit in range(4)]
ALL = [("01_make", 0), *GROWN, ("03_use", 0)]


def result(toy, run="a"):
    return json.loads((toy.root / "toy" / run / "03_use" / "result.json").read_text())


def superseded(toy, run="a"):
    shelf = toy.root / "toy" / run / "superseded"
    return sorted(path.name for path in shelf.iterdir()) if shelf.exists() else []


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Skip, run, stop


def test_a_second_run_skips_everything_and_changes_no_result(toy):
    assert toy.do_all() == ALL
    assert result(toy) == [[0, 1, 2], 6.0]
    before = files_of(toy.root / "toy/a")
    assert toy.do_all() == []
    assert toy.outcomes() == ["skip"] * 3 and "unchanged" in toy.said[0]
    after = files_of(toy.root / "toy/a")
    assert {k: v for k, v in before.items() if k != "report.json"} == {
        k: v for k, v in after.items() if k != "report.json"
    }


@pytest.mark.parametrize(
    ("changed", "stops_at", "words"),
    [({"size": 5}, "01_make", "make.size=3, now 5"), ({"rate": 0.25}, "01_make", "grow.rate=0.5, now 0.25")],
)
def test_a_changed_setting_stops_and_tells_old_new_and_the_mend(toy, changed, stops_at, words):
    toy.do_all()
    before = files_of(toy.root / "toy/a")
    with pytest.raises(ChangedError) as caught:
        toy.do_all(**changed)
    message = str(caught.value)
    assert words in message and f"--redo {stops_at}" in message and "superseded" in message and "'a'" in message
    assert toy.log == []
    after = files_of(toy.root / "toy/a")
    assert {k for k in before if before[k] != after.get(k)} <= {"report.json"}
    assert toy.do_all() == [], "the old value again must be as if nothing had been"


def test_an_added_and_a_removed_setting_stop_too(toy):
    toy.do_all()
    record = toy.root / "toy/a/ledger/01_make.json"
    content = json.loads(record.read_text())
    content["identity"]["settings"]["make.gone"] = 1
    del content["identity"]["settings"]["make.size"]
    record.write_text(json.dumps(content))
    with pytest.raises(ChangedError, match="make.gone=1, now None; make.size=None, now 3"):
        toy.do_all()


def test_a_setting_that_keeps_the_result_does_not_stop(toy):
    toy.do_all()
    assert toy.do_all(comment="hello") == []


def test_a_new_version_stops(toy):
    toy.do_all()
    steps = tuple(replace(s, version=2) if s.id == "02_grow" else s for s in toy.STEPS)
    with pytest.raises(ChangedError, match="version 1 of this step, now 2"):
        toy.do_all(steps=steps)
    assert toy.do_all(steps=steps, redo=["02_grow"]) == GROWN


def test_a_changed_outside_input_stops_and_names_it(toy, tmp_path):
    (tmp_path / "mine.wav").write_text("one")
    toy.do_all(folder=str(tmp_path / "mine.wav"))
    assert toy.do_all(folder=str(tmp_path / "mine.wav")) == []
    (tmp_path / "mine.wav").write_text("two")
    with pytest.raises(ChangedError, match="other files in .*mine.wav"):
        toy.do_all(folder=str(tmp_path / "mine.wav"))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda p: p.unlink(),
        lambda p: p.write_bytes(p.read_bytes()[:-1]),
        lambda p: p.write_bytes(b"X" + p.read_bytes()[1:]),
        lambda p: p.write_bytes(b""),
    ],
    ids=["missing", "truncated", "altered", "empty"],
)
@pytest.mark.parametrize(
    ("name", "done_again"),
    [
        ("01_make/numbers.json", [("01_make", 0)]),
        ("03_use/result.json", [("03_use", 0)]),
        # What resumes is not done again.
        ("02_grow/grown.json", []),
        ("02_grow/extra/more.json", []),
    ],
)
def test_a_broken_output_is_made_again_and_what_reads_it_is_skipped(toy, name, spoil, done_again):
    toy.do_all()
    path = toy.root / "toy/a" / name
    whole = path.read_bytes()
    spoil(path)
    broken = path.read_bytes() if path.exists() else None
    assert toy.do_all() == done_again
    assert sorted(toy.outcomes()) == ["run", "skip", "skip"]
    assert any(Path(name).name in line and "missing or changed" in line for line in toy.said)
    assert path.read_bytes() == whole and toy.do_all() == []
    kept = [p.read_bytes() for p in (toy.root / "toy/a/superseded").rglob("*") if p.is_file()]
    assert broken is None or broken in kept, "even a broken file is somebody's"


def test_a_missing_folder_is_made_again_even_if_it_held_no_outputs(toy):
    toy.do_all()
    shutil.rmtree(toy.root / "toy/a/02_grow")
    assert toy.do_all() == GROWN and result(toy) == [[0, 1, 2], 6.0]


def test_a_file_that_is_no_output_does_not_matter(toy):
    toy.do_all()
    (toy.root / "toy/a/02_grow/extra/note.txt").write_text("mine")
    (toy.root / "toy/a/02_grow/progress.json").unlink()
    assert toy.do_all() == []


def test_our_own_notes_are_no_outputs_whatever_the_pattern(toy):
    toy.do_all()
    assert list(json.loads((toy.root / "toy/a/ledger/03_use.json").read_text())["outputs"]) == ["result.json"]


def test_identical_output_upstream_skips_what_reads_it_other_output_runs_it(toy):
    toy.do_all(modulo=1)
    assert toy.do_all(modulo=1, redo=["01_make"]) == [("01_make", 0)]
    assert toy.outcomes() == ["run", "skip", "skip"]
    assert toy.do_all(modulo=1, size=4, redo=["01_make"])[0] == ("01_make", 0)
    assert [line for line in toy.said if line.startswith("02_grow  run: 01_make was made anew")]
    assert result(toy) == [[0, 0, 0, 0], 0.0]


def test_a_step_whose_source_is_not_done_is_refused(toy):
    with pytest.raises(UsageError, match="Cannot run 02_grow") as caught:
        toy.do_all(start="02")
    assert "01_make" in caught.value.fix and toy.log == []
    toy.do_all()
    shutil.rmtree(toy.root / "toy/a/01_make")
    with pytest.raises(UsageError, match="Cannot run 03_use"):
        toy.do_all(start="03")


def test_a_cut_record_is_a_clear_error_and_loses_no_output(toy):
    toy.do_all()
    record = toy.root / "toy/a/ledger/01_make.json"
    record.write_bytes(record.read_bytes()[:20])
    with pytest.raises(StateError, match="01_make.json") as caught:
        toy.do_all()
    assert "mv " in caught.value.fix
    record.rename(record.with_suffix(".bad"))
    mark = toy.root / "toy/a/01_make/numbers.json"
    mark.write_text("[7]")
    assert toy.do_all() == [("01_make", 0)]
    assert "[7]" in [p.read_text() for p in (toy.root / "toy/a/superseded").rglob("numbers.json")]


# Settings that had another name when the work was done


def as_an_earlier_version_wrote_it(folder: Path) -> None:
    """Put a setting's former name into all records."""
    for path in [*folder.glob("ledger/*.json"), *folder.glob(f"*/{STARTED}")]:
        path.write_text(path.read_text().replace('"grow.rate"', '"grow.speed"'))


def test_a_finished_step_is_not_done_again_because_a_setting_got_another_name(toy):
    toy.do_all()
    as_an_earlier_version_wrote_it(toy.root / "toy/a")
    assert toy.do_all() == [] and toy.outcomes() == ["skip"] * 3
    with pytest.raises(ChangedError, match="grow.rate=0.5, now 0.25"):
        toy.do_all(rate=0.25)
    assert toy.do_all() == [] and superseded(toy) == []
    assert toy.do_all(redo=["03"]) == [("03_use", 0)] and superseded(toy) == ["03_use.1", "03_use.json.1"]


def test_half_made_work_goes_on_under_a_setting_s_new_name(toy):
    toy.hooks.append(stop_at(2))
    with pytest.raises(RuntimeError):
        toy.do_all()
    toy.hooks.clear()
    as_an_earlier_version_wrote_it(toy.root / "toy/a")
    assert toy.do_all() == [("02_grow", 2), ("02_grow", 3), ("03_use", 0)] and superseded(toy) == []
    assert toy.do_all() == [] and result(toy) == [[0, 1, 2], 6.0]


def test_a_broken_file_of_work_from_before_is_mended_as_any_other(toy):
    done = []
    for run in ("a", "b"):
        toy.do_all(run=run)
        (toy.root / "toy" / run / "02_grow" / "grown.json").unlink()
        if run == "b":
            as_an_earlier_version_wrote_it(toy.root / "toy/b")
        done.append(toy.do_all(run=run))
    assert done[0] == done[1] and superseded(toy, "a") == superseded(toy, "b")


# Work begun


def stop_at(unit):
    def hook(name, at, run):
        if name == "02_grow" and at == unit:
            raise RuntimeError("power cut")

    return hook


def test_half_made_work_goes_on_where_it_stood(toy):
    toy.hooks.append(stop_at(2))
    with pytest.raises(RuntimeError):
        toy.do_all()
    toy.hooks.clear()
    assert toy.do_all() == [("02_grow", 2), ("02_grow", 3), ("03_use", 0)]
    assert "02_grow  run: continues what was begun" in toy.said and result(toy) == [[0, 1, 2], 6.0]
    assert superseded(toy) == []


def test_half_made_work_with_a_changed_setting_stops_and_is_kept_by_redo(toy):
    steps = (replace(toy.STEPS[0], uses=("make", "grow")), *toy.STEPS[1:])
    toy.hooks.append(stop_at(2))
    with pytest.raises(RuntimeError):
        toy.do_all(steps=steps)
    toy.hooks.clear()
    with (
        toy.open(steps, rate=2.0) as run,
        pytest.raises(ChangedError, match="02_grow.*half made with grow.rate=0.5, now 2.0"),
    ):
        run.ledger.redo(steps[0], run.config)
        run.do("01_make")
        (toy.root / "toy/a/superseded/02_grow.partial.1").rename(toy.root / "toy/a/02_grow.partial")
        run.do("02_grow")
    assert toy.do_all(rate=2.0, redo=["02"])[0] == ("02_grow", 0)
    assert json.loads((toy.root / "toy/a/superseded/02_grow.partial.1/progress.json").read_text())["done"] == 2


def test_half_made_work_on_other_input_is_set_aside(toy):
    toy.hooks.append(stop_at(2))
    with pytest.raises(RuntimeError):
        toy.do_all()
    toy.hooks.clear()
    assert toy.do_all(size=4, redo=["01"]) == ALL
    assert result(toy) == [[0, 1, 2, 3], 12.0] and "02_grow.partial.1" in superseded(toy)


def test_unfinished_work_that_cannot_be_read_is_kept_not_deleted(toy):
    toy.hooks.append(stop_at(2))
    with pytest.raises(RuntimeError):
        toy.do_all()
    toy.hooks.clear()
    (toy.root / "toy/a/02_grow.partial" / STARTED).write_text("{")
    assert toy.do_all() == [*GROWN, ("03_use", 0)]
    assert (toy.root / "toy/a/superseded/02_grow.partial.1/progress.json").exists()


def test_half_made_work_that_cannot_resume_begins_again_from_nothing(toy):
    def hook(name, at, run):
        (run.output / "litter.json").write_text("{}")
        raise RuntimeError

    toy.hooks.append(hook)
    with pytest.raises(RuntimeError):
        toy.do_all(start="01", stop="01")
    toy.hooks.clear()
    toy.do_all()
    assert toy.said[0] == "01_make  run: begun but not finished"
    assert not (toy.root / "toy/a/01_make/litter.json").exists() and superseded(toy) == []


# Redo


def test_redo_keeps_the_old_twice_and_skips_what_got_the_same(toy):
    toy.do_all()
    for time in (1, 2):
        assert toy.do_all(redo=["02_grow"]) == GROWN
        assert toy.outcomes() == ["skip", "run", "skip"]
        assert superseded(toy) == sorted(f"02_grow{kind}.{n}" for kind in ("", ".json") for n in range(1, time + 1))
    assert result(toy) == [[0, 1, 2], 6.0]


def test_redo_sets_aside_later_steps_that_do_not_fit_their_settings_any_more(toy):
    toy.do_all()
    assert toy.do_all(rate=1.0, redo=["01"]) == ALL
    assert "02_grow.1" in superseded(toy) and "02_grow.json.1" in superseded(toy)
    old = json.loads((toy.root / "toy/a/superseded/02_grow.1/grown.json").read_text())
    assert old == 6.0 and result(toy) == [[0, 1, 2], 12.0]


def test_redo_leaves_later_steps_that_read_something_else(toy):
    @step("04_other", uses=("grow",))
    def other(config, run):
        """Read nothing."""

    steps = (*toy.STEPS, other)
    toy.do_all(steps=steps)
    with pytest.raises(ChangedError, match="04_other"):
        toy.do_all(steps=steps, rate=1.0, redo=["01"])


def test_redo_of_a_step_that_is_not_run_is_refused_before_anything_moves(toy):
    toy.do_all()
    with pytest.raises(UsageError, match="Cannot redo"):
        toy.do_all(start="02", redo=["01"])
    assert superseded(toy) == [] and toy.do_all() == []


def test_redo_of_a_single_cell(toy):
    with toy.open() as run:
        run.do("01")
        run.do("01", redo=True)
        run.do("01")
    assert toy.outcomes() == ["run", "run", "skip"] and superseded(toy) == ["01_make.1", "01_make.json.1"]


# Names and sections


def test_find_and_select(toy):
    for wanted in ("02", "2", "grow", "02_grow"):
        assert find(toy.STEPS, wanted).id == "02_grow"
    for wanted in ("", "0", "04", "02_gro", "02_"):
        with pytest.raises(UsageError, match="one of 01_make, 02_grow, 03_use"):
            find(toy.STEPS, wanted)
    with pytest.raises(UsageError, match="No such step") as caught:
        find(toy.STEPS, "grwo")
    assert caught.value.fix == "did you mean 02_grow?"
    assert [s.id for s in select(toy.STEPS, "02", None, ())] == ["02_grow", "03_use"]
    assert [s.id for s in select(toy.STEPS, None, "grow", ())] == ["01_make", "02_grow"]
    assert [s.id for s in select(toy.STEPS, "2", "2", ("2",))] == ["02_grow"]
    for start, stop, redo in (("03", "01", ()), ("9", None, ()), (None, "9", ()), (None, None, ("9",))):
        with pytest.raises(UsageError):
            select(toy.STEPS, start, stop, redo)


def test_a_step_sees_the_sections_it_declared_and_no_other(toy):
    sections = Sections(toy.config(), toy.STEPS[1])
    assert sections.grow.rate == 0.5
    with pytest.raises(AttributeError, match="02_grow uses .* must declare 'make'"):
        _ = sections.make
    assert copy.copy(sections).grow == sections.grow
    assert pickle.loads(pickle.dumps(sections)).grow == sections.grow


def test_the_title_is_the_first_line_of_the_docstring(toy):
    assert [s.title for s in toy.STEPS] == ["Make numbers", "Grow them; resumes", "Use them"]


# Killed before the n-th file operation, for every n


SCENARIOS = {
    "fresh": (None, {}, (), None),
    "redo": ({}, {}, ("02",), None),
    "redo the first": ({}, {}, ("01",), None),
    "redo with other settings": ({}, {"rate": 1.0, "size": 4}, ("01",), None),
    "redo of half made work": ("half", {}, ("02",), None),
    "broken output": ({}, {}, (), "01_make/numbers.json"),
    "broken output of what resumes": ({}, {}, (), "02_grow/grown.json"),
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_kill_before_any_file_operation_ends_in_the_same_result(toy, killer, no_fsync, scenario):
    first, settings, redo, broken = SCENARIOS[scenario]
    if first == "half":
        toy.hooks.append(stop_at(2))
        with pytest.raises(RuntimeError):
            toy.do_all(run="start")
        toy.hooks.clear()
    elif first is not None:
        toy.do_all(run="start", **first)
    prepared = toy.root / "toy/start"
    if broken:
        (prepared / broken).unlink()
    records = [json.loads(path.read_text()) for path in prepared.glob("ledger/*.json")]
    made = {
        digest: name
        for record in records
        for name, (_, digest) in record["outputs"].items()
        if name not in (broken or "")
    }
    toy.do_all(run="wanted", **settings)
    wanted = result(toy, "wanted")
    num_kills = 0
    while True:
        run, folder = f"k{num_kills}", toy.root / "toy" / f"k{num_kills}"
        if prepared.exists():
            shutil.copytree(prepared, folder)
        toy.log.clear()
        opened = toy.open(run=run, **settings)
        with killer(folder, num_kills) as record:
            opened.do_all(redo=redo)
        opened.close()
        if not record["dead"]:
            break
        units_before = sum(name == "02_grow" for name, _ in toy.log)
        done = finished(toy, folder, settings)
        try:
            again = toy.do_all(run=run, **settings)
        except ChangedError:  # killed before the redo took hold: the user is told to ask for it, and does
            assert redo and settings
            again = toy.do_all(run=run, redo=redo, **settings)
        assert not done & {name for name, _ in again}, f"killed before operation {num_kills}: done work was done again"
        if scenario == "fresh":  # a unit is lost at most: the one whose state was not written
            assert units_before + sum(name == "02_grow" for name, _ in again) <= 5
        assert result(toy, run) == wanted
        assert toy.do_all(run=run, **settings) == []
        kept = {sha256(data).hexdigest() for data in files_of(folder).values()}
        if scenario.startswith("redo"):  # a record never goes aside without what it is the record of
            shelf = superseded(toy, run)
            assert all(name.replace(".json.", ".") in shelf for name in shelf), f"operation {num_kills}: {shelf}"
        lost = [name for digest, name in made.items() if digest not in kept]
        assert not lost, f"killed before operation {num_kills}: {lost} are gone"
        shutil.rmtree(folder)
        num_kills += 1
    assert num_kills > 10, "the killer must have met every operation"
    assert result(toy, run) == wanted


def finished(toy, folder, settings) -> set[str]:
    """Return the steps that are finished now, as their ledger sees it, up to the first that is not."""
    ledger, done = Ledger(folder, toy.STEPS), set()
    for one in toy.STEPS:
        try:
            if ledger.decide(one, ledger.identity(one, toy.config(**settings))).outcome != "skip":
                break
        except UsageError:
            break
        done.add(one.id)
    return done
