"""Where shards go: a repository that others commit to and guard, or a folder that loads the same way."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from colabkit.core.errors import UsageError
from colabkit.loopback.hub import HubServer
from colabkit.loopback.hub_repos import make_file
from colabkit.pipelines.dataset.publish.hub_dataset import HubSettings, PublishSettings
from tests.pipelines.dataset.publish.conftest import READER, TOKEN
from tests.pipelines.dataset.publish.publishing import files_of, publish
from tests.pipelines.dataset.publish.sets import make_store
from tests.servers.clients import run_client


@pytest.mark.parametrize(
    "repo, token, hint",
    [
        ("me/voices", "", "HF_TOKEN"),
        ("me/voices", "hf_expired", "does not accept"),
        ("me/voices", READER, "tester/voices"),
        ("other/voices", TOKEN, "publish.repo=me/voices"),
        ("other/taken", TOKEN, "publish.repo=me/taken"),
        ("other/hidden", TOKEN, "publish.repo=me/hidden"),
        ("voices", TOKEN, "ORG/NAME"),
        ("me/a--b", TOKEN, "ORG/NAME"),
    ],
)
def test_refusals_say_what_mends_them_and_nothing_secret(hub, tmp_path, repo, token, hint):
    store = make_store(tmp_path / "store", 4)
    hub.writers["hf_other"] = ("other",)
    hub.add_dataset("other/taken", {"README.md": b"theirs"})
    hub.add_dataset("other/hidden", {"README.md": b"theirs"}, private=True)
    with pytest.raises(UsageError) as caught:
        publish(hub, store, tmp_path / "scratch", repo, token=token)
    assert hint in str(caught.value) and caught.value.fix
    assert not any("/uploads/" in path for _, path, _, _ in hub.requests if path.startswith("/uploads"))
    told = str(caught.value) + repr(caught.value) + repr(caught.value.__cause__) + repr(HubSettings(token=TOKEN))
    assert TOKEN not in told and READER not in told and "hf_expired" not in told
    assert hub.repos["other/taken"].find("main").files.keys() == {"README.md"}


def test_a_repository_that_appears_in_between_is_taken_as_it_is(hub, tmp_path):
    store = make_store(tmp_path / "store", 6)

    class Appearing(HubServer):
        def _create(self, request, token):
            theirs = json.loads(request.body) | {"visibility": "public", "private": False}
            super()._create(replace(request, body=json.dumps(theirs).encode()), token)  # somebody was faster
            return super()._create(request, token)

    with Appearing() as appearing:
        appearing.writers = hub.writers
        # what is to be private is not sent there
        with pytest.raises(UsageError, match="public one of this name") as caught:
            publish(appearing, store, tmp_path / "scratch", "lab/voices")
        assert "publish.private=no" in caught.value.fix and not any(
            method == "PUT" for method, *_ in appearing.requests
        )
        published, _, _, _ = publish(appearing, store, tmp_path / "scratch", "lab/voices", patience={"private": False})
        assert not published.private and published.num_rows == 6


class Racing(HubServer):
    """A Hub on which somebody else commits just before each of the first commits of ours arrives."""

    races = 0

    def _commit(self, request, repo, commit, path):
        if self.races < 3:
            self.races += 1
            self._put(
                repo,
                {**repo.find("main").files, f"notes-{self.races}.md": make_file(b"theirs", large_bytes=99)},
                "main",
            )
        return super()._commit(request, repo, commit, path)


def test_what_others_commit_meanwhile_stays(hub, tmp_path):
    store = make_store(tmp_path / "store", 12)
    with Racing() as racing:
        racing.writers = hub.writers
        published, _, _, _ = publish(racing, store, tmp_path / "scratch")
        files = files_of(racing)
        assert {"notes-1.md", "notes-2.md", "notes-3.md", "README.md"} <= files.keys() and published.num_commits == 1
        assert [status for _, path, _, status in racing.requests if "/commit/" in path] == [412, 412, 412, 200]


def test_commits_are_few_and_name_what_is_uploaded(hub, tmp_path):
    store = make_store(tmp_path / "store", 150)
    settings = PublishSettings(shard_bytes=1, split_by="none", with_audio=False)  # a shard a segment
    published, _, _, _ = publish(hub, store, tmp_path / "scratch", settings=settings)
    assert published.num_shards == 150 and published.num_commits == 3
    assert len(hub.repos["me/voices"].commits) == 4  # one came with the repository


def test_without_a_repository_the_dataset_is_a_folder(tmp_path):
    store = make_store(tmp_path / "store", 20)
    from colabkit.pipelines.dataset.publish.facts import CardSettings

    for number_made in (True, False):
        published, segments, _, _ = publish(
            None, store, tmp_path / "scratch", "", output=tmp_path / "out", card=CardSettings(with_durations_plot=True)
        )
        assert bool(published.num_made) == number_made and bool(segments.read_bytes) == number_made
    cut = next((tmp_path / "out").rglob("*.parquet"))
    cut.write_bytes(cut.read_bytes()[:-1])
    assert publish(None, store, tmp_path / "scratch", "", output=tmp_path / "out")[0].num_made == 1
    shutil.rmtree(tmp_path / "out" / ".colabkit")  # as a kill before the first commit leaves it
    assert publish(None, store, tmp_path / "scratch", "", output=tmp_path / "out")[0].num_made == 0
    assert (tmp_path / "out" / "durations.png").read_bytes()[:4] == b"\x89PNG"
    told = run_client(
        "import json, sys\nfrom datasets import load_dataset, Audio\n"
        "d = load_dataset(sys.argv[1], split='train', streaming=True).cast_column('audio', Audio(decode=False))\n"
        "print(json.dumps({'keys': [r['key'] for r in d]}))",
        {},
        tmp_path,
        str(tmp_path / "out"),
    )
    assert len(told["keys"]) == published.splits["train"]
