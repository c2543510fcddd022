"""Pushes of a model's folder by the real client to a Hub on loopback: once, whole, with clear refusals."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from colabkit.core.errors import ColabkitError, StateError, UsageError
from colabkit.core.teller import Teller
from colabkit.io.places.http.patience import Unreachable
from colabkit.io.transfer.hub_folder import push
from colabkit.loopback.hub import HubServer
from colabkit.loopback.hub_repos import make_file
from colabkit.pipelines.asr.publish.card import write_card
from colabkit.pipelines.asr.text.vocabulary import Vocabulary
from tests.pipelines.asr.publish.test_card import FACTS
from tests.servers.clients import run_client
from tests.servers.faults import FaultProxy
from tests.told import Told

TOKEN, READER = "hf_" + "w" * 34, "hf_" + "r" * 34


@pytest.fixture
def hub(monkeypatch, tmp_path):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)  # read once, when it is imported
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with HubServer() as server:
        server.writers, server.tokens = {TOKEN: ("me", "lab")}, {READER}
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return the folder of a tiny CTC model as a run leaves it."""
    from transformers.models.wav2vec2 import Wav2Vec2Config
    from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2ForCTC

    folder = tmp_path_factory.mktemp("trained")
    vocabulary = Vocabulary.of("abc")
    Wav2Vec2ForCTC(
        Wav2Vec2Config(
            vocab_size=len(vocabulary),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            conv_dim=(16, 16),
            conv_stride=(5, 4),
            conv_kernel=(10, 8),
            num_feat_extract_layers=2,
            num_conv_pos_embeddings=4,
            num_conv_pos_embedding_groups=2,
        )
    ).save_pretrained(folder)
    vocabulary.save(folder)
    write_card(folder, FACTS)
    (folder / "history.png").write_bytes(bytes(range(256)) * 500)  # larger than what goes into a commit
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "big.bin").write_bytes(b"x" * 10)
    (folder / ".hidden").write_text("x")
    return folder


def copy_of(folder: Path, place: Path) -> Path:
    place.mkdir()
    for path in folder.iterdir():
        if path.is_file():
            (place / path.name).write_bytes(path.read_bytes())
    return place


def written(hub: HubServer) -> list[str]:
    """Return what was sent to the Hub: uploads and commits."""
    sent = [path for method, path, _, _ in hub.requests if method in ("PUT", "POST")]
    return [path for path in sent if "/uploads/" in path or "/commit/" in path]


LOAD = """
import hashlib, json, sys
from pathlib import Path
from huggingface_hub import ModelCard, snapshot_download
from transformers import Wav2Vec2CTCTokenizer
from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2ForCTC
model, tokenizer = Wav2Vec2ForCTC.from_pretrained("me/words"), Wav2Vec2CTCTokenizer.from_pretrained("me/words")
folder, card = Path(snapshot_download("me/words")), ModelCard.load("me/words")
print(json.dumps({
    "vocab": tokenizer.get_vocab(), "sum": sum(float(p.double().sum()) for p in model.parameters()),
    "files": {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()},
    "wer": card.data.eval_results[0].metric_value, "licence": card.data.license, "base": card.data.base_model}))
"""


def test_a_pushed_model_is_loaded_from_the_hub_as_it_was(hub, trained, tmp_path):
    said = []
    pushed = push(trained, "me/words", token=TOKEN, teller=Teller(said.append))
    assert (
        pushed.private
        and hub.models["me/words"].private
        and pushed.revision == hub.models["me/words"].revisions["main"]
    )
    told = run_client(LOAD, hub.environment() | {"HF_TOKEN": TOKEN}, tmp_path)
    wanted = {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest()
        for p in trained.iterdir()
        if p.is_file() and p.name[0] != "."
    }
    told["files"].pop(".gitattributes")
    assert told["files"] == wanted and pushed.num_files == len(wanted) and len(said) == 1
    assert told["vocab"] == Vocabulary.of("abc").indices
    from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2ForCTC

    local = Wav2Vec2ForCTC.from_pretrained(trained)
    assert told["sum"] == pytest.approx(sum(float(p.detach().double().sum()) for p in local.parameters()))
    assert (told["wer"], told["licence"], told["base"]) == (20.0, "apache-2.0", "facebook/wav2vec2-base")


def test_nothing_is_pushed_twice(hub, trained, tmp_path):
    folder, said = copy_of(trained, tmp_path / "model"), []
    first = push(folder, "me/words", token=TOKEN, teller=Teller(said.append))
    hub.requests.clear()
    second = push(folder, "me/words", token=TOKEN, teller=Teller(said.append))
    assert (
        written(hub) == []
        and (second.num_files, second.revision) == (0, first.revision)
        and "nothing to push" in said[-1]
    )
    (folder / "vocab.json").write_text(json.dumps({"changed": 1}))
    third = push(folder, "me/words", token=TOKEN, private=False, teller=Teller(said.append))
    assert third.num_files == 1 and third.private and written(hub) == ["/api/models/me/words/commit/main"]
    assert any("stays private" in line for line in said)
    commit = hub.models["me/words"].commits[third.revision]
    assert commit.files["vocab.json"].content == (folder / "vocab.json").read_bytes() and "config.json" in commit.files


def test_a_push_lives_through_faults(hub, trained):
    with FaultProxy(hub.url, seed=1, resets=0.12, refusals=0.12) as proxy:
        pushed = push(trained, "me/words", token=TOKEN, endpoint=proxy.url, teller=Told())
        assert proxy.counts["resets"] and proxy.counts["429"] + proxy.counts["503"]
    commit = hub.models["me/words"].commits[pushed.revision]
    for path in trained.iterdir():
        if path.is_file() and path.name[0] != ".":
            stored = commit.files[path.name].content
            assert stored == path.read_bytes()
    assert len(hub.models["me/words"].commits) == 2  # the first is made with the repository


class Busy(HubServer):
    """A Hub on which somebody else commits while we upload."""

    def _preupload(self, request, repo, commit, path):
        answer = super()._preupload(request, repo, commit, path)
        if len(repo.commits) < 3:
            repo.commit({**repo.find("main").files, "notes.md": make_file(b"theirs", large_bytes=99)}, "main")
        return answer


def test_what_somebody_else_commits_meanwhile_stays(hub, trained):
    with Busy() as busy:
        busy.writers = hub.writers
        pushed = push(trained, "lab/words", token=TOKEN, endpoint=busy.url, teller=Told())
        files = busy.models["lab/words"].commits[pushed.revision].files
        assert files["notes.md"].content == b"theirs" and "model.safetensors" in files


@pytest.mark.parametrize(
    "repo, token, kind, hint",
    [
        ("me/words", None, UsageError, "HF_TOKEN"),
        ("me/words", "hf_expired", UsageError, "does not accept"),
        ("me/words", READER, UsageError, "tester/words"),
        ("other/words", TOKEN, UsageError, "publish.repo=me/words"),
        ("other/taken", TOKEN, UsageError, "publish.repo=me/taken"),
        ("words", TOKEN, UsageError, "ORG/NAME"),
        ("me/two words", TOKEN, UsageError, "ORG/NAME"),
        ("me/a--b", TOKEN, UsageError, "ORG/NAME"),
    ],
)
def test_refusals_say_what_mends_them_and_nothing_secret(hub, trained, tmp_path, repo, token, kind, hint):
    hub.writers["hf_other"] = ("other",)
    (tmp_path / "config.json").write_text("{}")
    push(tmp_path, "other/taken", token="hf_other", private=False, teller=Told())
    hub.requests.clear()
    with pytest.raises(kind) as caught:
        push(trained, repo, token=token, teller=Told())
    assert hint in str(caught.value) and caught.value.fix and not any("/uploads/" in path for path in written(hub))
    for secret in (TOKEN, READER, "hf_expired"):
        assert secret not in str(caught.value) + repr(caught.value.__cause__)


def test_offline_and_unreachable_are_told(hub, trained, monkeypatch):
    import huggingface_hub

    with pytest.raises(Unreachable) as caught:
        push(trained, "me/words", token=TOKEN, endpoint="http://127.0.0.1:9", deadline_seconds=0.5)
    assert "network" in caught.value.fix
    with FaultProxy(hub.url, refusals=1.0, retry_after_seconds=3600) as proxy, pytest.raises(Unreachable) as caught:
        push(trained, "me/words", token=TOKEN, endpoint=proxy.url, deadline_seconds=1.0)
    assert caught.value.fix
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    huggingface_hub.close_session()
    try:
        with pytest.raises(ColabkitError) as caught:
            push(trained, "me/words", token=TOKEN)
    finally:
        huggingface_hub.close_session()
    assert "HF_HUB_OFFLINE" in caught.value.fix


def test_an_empty_folder_is_refused(hub, tmp_path):
    (tmp_path / ".hidden").write_text("x")
    with pytest.raises(StateError):
        push(tmp_path, "me/words", token=TOKEN)
