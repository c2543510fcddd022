"""Where the values of a profile come from, in which order, and that no secret is shown."""

from __future__ import annotations

import os
import pickle

import pytest

from colabkit.core.errors import UsageError
from colabkit.io.places import S3Profile
from tests.io.places.conftest import FILES, pinned

SECRETS = ("AKIATHEKEYITSELF0001", "the-secret-itself", "the-token-itself")


def test_order_of_sources(monkeypatch, tmp_path):
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id = AKIAFILE\naws_secret_access_key = of-the-file\n"
    )
    (tmp_path / "config").write_text("[default]\nregion = eu-file-1\n[profile other]\nregion = eu-other-1\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    found = S3Profile.find("bucket")
    assert (found.access_key, found.secret_key, found.region, found.endpoint) == (
        "AKIAFILE",
        "of-the-file",
        "eu-file-1",
        "",
    )
    assert found.sources["access_key"] == "~/.aws/credentials" and found.sources["region"] == "~/.aws/config"
    (tmp_path / ".env").write_text("S3_ACCESS_KEY=AKIADOTENV\nS3_SECRET_KEY=of-dotenv\n")
    found = S3Profile.find("bucket")
    assert (found.access_key, found.secret_key) == ("AKIADOTENV", "of-dotenv")
    assert found.sources["secret_key"] == "secret S3_SECRET_KEY"
    for name, value in {
        "S3_ENDPOINT_URL": "https://s3.example:9021/",
        "S3_ACCESS_KEY": SECRETS[0],
        "S3_SECRET_KEY": SECRETS[1],
        "S3_BUCKET_NAME": "aifiles",
    }.items():
        monkeypatch.setenv(name, value)
    found = S3Profile.find()
    assert (found.bucket, found.endpoint, found.access_key, found.path_style) == (
        "aifiles",
        "https://s3.example:9021",
        SECRETS[0],
        True,
    )
    assert found.sources["endpoint"] == "S3_ENDPOINT_URL" and found.sources["access_key"] == "S3_ACCESS_KEY"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-the-environment")
    found = S3Profile.find("bucket", region="us-given-1")
    assert (found.endpoint, found.access_key, found.secret_key) == (
        "http://127.0.0.1:9000",
        "AKIAENV",
        "of-the-environment",
    )
    assert found.region == "us-given-1" and found.sources["region"] == "given" and not found.session_token
    found = S3Profile.find("bucket", access_key="AKIAGIVEN", secret_key="s", like=found)
    assert (
        found.access_key == "AKIAGIVEN" and found.region == "us-given-1" and found.endpoint == "http://127.0.0.1:9000"
    )


def test_keys_come_from_one_place_together(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENV")
    monkeypatch.setenv("S3_SECRET_KEY", "of-another-pair")
    with pytest.raises(UsageError, match="One of the two") as caught:
        S3Profile.find("bucket")
    assert "AWS_SECRET_ACCESS_KEY" in caught.value.fix and "of-another-pair" not in str(caught.value)


def test_nothing_secret_is_shown(monkeypatch):
    profile = S3Profile(bucket="bucket", access_key=SECRETS[0], secret_key=SECRETS[1], session_token=SECRETS[2])
    shown = f"{profile!r} {profile} {profile.table()} {profile.table()._repr_html_()}"
    assert not any(secret in shown for secret in SECRETS) and "set" in shown
    assert pickle.loads(pickle.dumps(profile)) == profile


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"bucket": "No Bucket"}, "no name of a bucket"),
        ({"bucket": ""}, "no name of a bucket"),
        ({"endpoint": "s3.example:9021"}, "no web address"),
        ({"endpoint": "https://user:password@host"}, "no web address"),
        ({"access_key": "AKIA"}, "One of the two"),
        ({"secret_key": "x"}, "One of the two"),
        ({"ca_bundle": "/not/there.pem"}, "no file of certificates"),
    ],
)
def test_what_cannot_be(values, words):
    with pytest.raises(UsageError, match=words) as caught:
        S3Profile(**{"bucket": "bucket", **values})
    assert "password" not in str(caught.value)


def test_path_style(monkeypatch):
    assert (
        S3Profile(bucket="bucket").path_style is False
        and S3Profile(bucket="bucket", endpoint="http://h").path_style is True
    )
    monkeypatch.setenv("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "true")
    assert S3Profile.find("bucket", endpoint="http://bucket.host").path_style is False
    assert S3Profile.find("bucket", endpoint="http://host", path_style=True).path_style is True
    with pytest.raises(TypeError):
        S3Profile.find("bucket", acces_key="x")


def test_a_configuration_that_cannot_be_read(monkeypatch, tmp_path):
    (tmp_path / "broken").write_text("region = no section")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "broken"))
    with pytest.raises(UsageError, match="configuration file"):
        S3Profile.find("bucket")


def test_s3_keys_of_a_profile(at, monkeypatch, tmp_path):
    address = at("s3")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    path = tmp_path / "credentials"
    path.write_text("[default]\naws_access_key_id = AK\naws_secret_access_key = SECRET%x\n[sso]\nsso_session = x\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.fspath(path))
    store = pinned(address)
    assert store.read("a.wav") == FILES["a.wav"] and b"SECRET" not in pickle.dumps(store)
    monkeypatch.setenv("AWS_PROFILE", "sso")
    with pytest.raises(UsageError, match="no keys of its own") as caught:
        pinned(address)
    assert "export-credentials --profile sso" in caught.value.fix
    path.write_text("no section = 1\n")
    with pytest.raises(UsageError, match="credentials file"):
        pinned(address)
