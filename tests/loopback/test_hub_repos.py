"""Repositories of a Hub: commits, files and refs by the names that git gives them."""

from __future__ import annotations

import hashlib

from colabkit.loopback.hub import HubServer
from colabkit.loopback.hub_repos import HubRepo, git_oid, make_file


def test_commits_are_named_by_their_content(hub):
    with HubServer() as other:
        shas = [[server.add_dataset("o/s", {"x": data}) for data in (b"1", b"2", b"2")] for server in (hub, other)]
    assert shas[0] == shas[1] and len(set(shas[0])) == 3 and all(len(sha) == 40 for sha in shas[0])


def test_files_have_the_names_that_git_and_large_file_storage_give_them(tmp_path):
    (tmp_path / "a").write_bytes(b"hello\n")
    small = [make_file(content, large_bytes=6) for content in (b"hello\n", tmp_path / "a")]
    assert [file.oid for file in small] == ["ce013625030ba8dba906f756967f9e9ca394464a"] * 2  # git hash-object
    assert small[0].sha256 is None and small[0].etag == f'"{small[0].oid}"' and "lfs" not in small[0].json("a")
    large = [make_file(content, large_bytes=5) for content in (b"hello\n", tmp_path / "a")]
    sha256 = hashlib.sha256(b"hello\n").hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize 6\n".encode()
    for file in large:
        assert (file.sha256, file.etag, file.pointer_size) == (sha256, f'"{sha256}"', len(pointer))
        assert file.oid == git_oid("blob", pointer) and file.json("a")["lfs"]["oid"] == sha256


def test_trees_refs_and_cards():
    repo = HubRepo("o/s")
    first = repo.commit({"README.md": make_file(b"---\nlicense: mit\n---\nText", large_bytes=99)}, "main")
    files = {path: make_file(b"x", large_bytes=99) for path in ("b/c/d", "b/a", "a")}
    second = repo.commit(files, "main")
    repo.commit(files, "refs/convert/parquet")
    assert repo.find(first).card == {"license": "mit"} and repo.find("main").card is None
    assert repo.find("main").sha == second != first and repo.find("nowhere") is None
    tree = repo.find("main").tree
    assert [entry["path"] for entry in tree("", recursive=True)] == ["a", "b", "b/a", "b/c", "b/c/d"]
    assert [entry["path"] for entry in tree("", recursive=False)] == ["a", "b"]
    assert [(entry["path"], entry["type"]) for entry in tree("b", recursive=False)] == [
        ("b/a", "file"),
        ("b/c", "directory"),
    ]
    refs = repo.refs()
    assert [ref["ref"] for ref in refs["branches"]] == ["refs/heads/main"]
    assert [ref["name"] for ref in refs["converts"]] == ["parquet"] and refs["tags"] == []
