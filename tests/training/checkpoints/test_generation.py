"""One generation: its name, its COMMIT that vouches for every byte, and the word beside it that it is the best."""

from __future__ import annotations

import json

import pytest
import torch

from colabkit.core.errors import StateError
from colabkit.runs.medium import Medium
from colabkit.training.checkpoints import generation, tensor_file
from colabkit.training.checkpoints.checkpoints import Checkpoints
from colabkit.training.checkpoints.generation import BEST, COMMIT, STATE
from tests.training.checkpoints.generations import loaded, place


@pytest.mark.parametrize("name", [STATE, COMMIT])
def test_a_generation_cut_off_at_any_byte_is_passed_over(two, name):
    path = place(two, 2) / name
    whole = path.read_bytes()
    assert loaded(two) == (2, 2, [])
    for length in range(len(whole) - (name == COMMIT)):  # its last byte is a newline that nobody misses
        path.write_bytes(whole[:length])
        latest, best, said = loaded(two)
        assert (latest, best) == (1, 1), length
        assert "generation-000000002" in said[0] and "passed over" in said[0]
    path.unlink()
    assert loaded(two)[:2] == (1, 1)


@pytest.mark.parametrize("name", [STATE, COMMIT])
def test_a_flipped_bit_anywhere_is_found(two, name):
    path = place(two, 2) / name
    whole = path.read_bytes()
    for position in range(len(whole)):
        for bit in (0, 5, 7):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 1 << bit]) + whole[position + 1 :])
            latest = Checkpoints(two, say=lambda line: None).load_latest()
            if name == COMMIT and latest[0] == 2:  # white space between two words of JSON
                assert json.loads(path.read_bytes()) == json.loads(whole)
            else:
                assert latest[0] == 1, (position, bit)


@pytest.mark.parametrize("manifest", ["null", "[]", "{}", "3", '"x"', '{"step": 2, "files": {}}', "{" * 5000, "\xff"])
def test_a_manifest_of_another_kind_is_passed_over(two, manifest):
    (place(two, 2) / COMMIT).write_text(manifest)
    assert loaded(two)[:2] == (1, 1)


def written(folder, *, best=False, **how):
    pieces = tensor_file.chunks(*tensor_file.take({"w": torch.ones(2)}))
    return generation.write(Medium(), folder, pieces, step=7, best=best, identity="work", **how)


def test_a_name_tells_its_step_and_is_never_used_again():
    found = {generation.new_name(1200) for _ in range(50)}
    assert len(found) == 50 and {generation.step_of(name) for name in found} == {1200}
    assert generation.step_of("generation-zzz") == generation.step_of("LATEST") == -1


def test_what_is_said_of_a_generation_is_what_was_written(tmp_path):
    about = written(tmp_path / "one")
    found, state = generation.read(Medium(), tmp_path / "one")
    assert found == about and (about.step, about.best, about.identity) == (7, False, "work")
    assert about.size_bytes == (tmp_path / "one" / STATE).stat().st_size and state["w"].tolist() == [1.0, 1.0]


def test_the_mark_of_the_best_counts_for_its_own_commit_alone(tmp_path):
    medium, folder, other = Medium(), tmp_path / "one", tmp_path / "other"
    written(folder)
    generation.mark_best(medium, folder)
    assert generation.read_about(medium, folder).best
    mark = (folder / BEST).read_bytes()
    generation.write(medium, other, [b"something else"], step=7, best=False, identity="work")
    for told in (mark, mark[:-3], b"[]"):
        (other / BEST).write_bytes(told)
        assert not generation.read_about(medium, other).best, told


def test_a_copy_of_other_bytes_is_never_committed(tmp_path):
    about = written(tmp_path / "one")
    with pytest.raises(StateError, match="changed while it was copied"):
        generation.write(Medium(), tmp_path / "two", [b"cut off"], step=7, best=False, identity="work", copy_of=about)
    assert not (tmp_path / "two" / COMMIT).exists()
