"""Profile of a bucket of S3, or of what speaks like it: endpoint, region, keys, certificates, where each was found."""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from colabkit.core.errors import UsageError
from colabkit.core.table import Table

ENDPOINT_NAMES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "S3_ENDPOINT_URL")
ROLE_NAMES = (
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
)
KEYS_FIX = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (in Colab: keep them under Secrets, the key on the left)"
_VARIABLES = {
    "bucket": ("S3_BUCKET_NAME", "AWS_BUCKET"),
    "endpoint": ENDPOINT_NAMES,
    "region": ("AWS_REGION", "AWS_DEFAULT_REGION", "S3_REGION"),
    "access_key": ("AWS_ACCESS_KEY_ID", "S3_ACCESS_KEY"),
    "secret_key": ("AWS_SECRET_ACCESS_KEY", "S3_SECRET_KEY"),
    "session_token": ("AWS_SESSION_TOKEN", "S3_SESSION_TOKEN"),
    "ca_bundle": ("AWS_CA_BUNDLE", "S3_CA_BUNDLE", "REQUESTS_CA_BUNDLE"),
}
_SECRET = ("access_key", "secret_key", "session_token")
_IN_CONFIG = {"region": "region", "endpoint": "endpoint_url", "ca_bundle": "ca_bundle"}  # as `aws configure` names them
_IN_KEYS = {
    "access_key": "aws_access_key_id",
    "secret_key": "aws_secret_access_key",
    "session_token": "aws_session_token",
}


@dataclass(frozen=True, kw_only=True)
class S3Profile:
    """How to reach one bucket. Printed without its secrets; `sources` says of each value where it was found.

    `path_style` puts the bucket's name into the path, as servers with an endpoint of their own want it. `ca_bundle` is
    the path of certificates (PEM) that are trusted besides the system's. `verify=False` talks to whoever answers: it
    must be said here.
    """

    bucket: str
    endpoint: str = ""
    region: str = ""
    access_key: str = field(default="", repr=False)
    secret_key: str = field(default="", repr=False)
    session_token: str = field(default="", repr=False)
    path_style: bool | None = None
    ca_bundle: str = ""
    verify: bool = True
    sources: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "endpoint", self.endpoint.rstrip("/"))
        if self.path_style is None:
            put(self, "path_style", bool(self.endpoint))
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", self.bucket):
            raise UsageError(
                "This is no name of a bucket",
                got=self.bucket,
                expected="s3://BUCKET/PREFIX, in small letters",
                fix="copy the bucket's name from its console page, or set S3_BUCKET_NAME",
            )
        if not re.match(r"https?://[^/@]+(/[^@?]*)?$|$", self.endpoint):
            raise UsageError(
                "The S3 endpoint is no web address",
                got=re.sub(r"//[^/]*@", "//", self.endpoint),
                expected="https://HOST or http://HOST:PORT, without a user in it",
                fix="correct AWS_ENDPOINT_URL or S3_ENDPOINT_URL, or unset it for Amazon's own S3",
            )
        if bool(self.access_key) != bool(self.secret_key):
            names = _VARIABLES["secret_key" if self.access_key else "access_key"]
            raise UsageError(
                "One of the two S3 keys is missing",
                got="the access key alone" if self.access_key else "the secret key alone",
                fix=f"set {' or '.join(names)} too (in Colab: keep both under Secrets)",
            )
        if self.ca_bundle and not os.path.isfile(self.ca_bundle):
            raise UsageError(
                "There is no file of certificates at this path",
                got=self.ca_bundle,
                fix="correct or unset AWS_CA_BUNDLE; `colabkit trust URL` writes such a file",
            )

    @property
    def has_keys(self) -> bool:
        return bool(self.access_key)

    @property
    def is_http(self) -> bool:
        return self.endpoint.startswith("http:")

    @classmethod
    def find(cls, bucket: str = "", *, like: S3Profile | None = None, **given: Any) -> S3Profile:
        """Return a profile of these values and, for what is not given, of what is found.

        Asked in this order: arguments, `like`, the environment (AWS_... first, then S3_ENDPOINT_URL, S3_ACCESS_KEY,
        S3_SECRET_KEY, S3_BUCKET_NAME), secrets (of Colab, a .env file or the keyring), ~/.aws. Keys are taken from one
        place.
        Raises: UsageError.
        """
        unknown = given.keys() - {one.name for one in fields(cls)} | given.keys() & {"sources"}
        if unknown:
            raise TypeError(f"S3Profile.find() has no argument {sorted(unknown)[0]!r}")
        given = {name: value for name, value in {"bucket": bucket, **given}.items() if value not in (None, "")}
        sources = dict.fromkeys(given, "given")
        if like is not None:
            for one in fields(cls):
                value = getattr(like, one.name)
                if one.name not in ("bucket", "sources") and one.name not in given and value not in (None, ""):
                    given[one.name], sources[one.name] = value, like.sources.get(one.name, "given")
        for name, value, source in _found(given):
            given.setdefault(name, value)
            sources.setdefault(name, source)
        if "path_style" not in given and given.get("endpoint") and says_yes("AWS_VIRTUAL_HOSTED_STYLE_REQUEST"):
            given["path_style"], sources["path_style"] = False, "AWS_VIRTUAL_HOSTED_STYLE_REQUEST"
        given.setdefault("bucket", "")
        return cls(**given, sources=sources)

    def table(self) -> Table:
        """Return what will be used and where it was found, without secrets."""
        rows = []
        for one in fields(self):
            if one.name == "sources":
                continue
            value = getattr(self, one.name)
            text = ("set" if value else "none") if one.name in _SECRET else str(value) if value != "" else "none"
            if one.name == "endpoint" and not value:
                text = "Amazon's own"
            rows.append([one.name.replace("_", " "), text, self.sources.get(one.name, "default")])
        return Table(["setting", "value", "from"], rows, title=f"how s3://{self.bucket} is reached")

    def without_keys(self) -> bool:
        """Tell whether nothing identifies us, not even a role of this process."""
        return not self.has_keys and not any(map(os.environ.get, ROLE_NAMES))


def _found(given: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Yield (name, value, where it was found) of what is not given; the first of a name counts."""
    for name, variables in _VARIABLES.items():
        if name not in _SECRET and name not in given:
            yield from ((name, value, variable) for variable in variables if (value := os.environ.get(variable)))
    if "access_key" not in given and "secret_key" not in given and not says_yes("AWS_SKIP_SIGNATURE"):
        yield from _keys()
    config = _config_of_profile()
    for name, key in _IN_CONFIG.items():
        if config.get(key):
            yield name, config[key], "~/.aws/config"


def _keys() -> Iterator[tuple[str, Any, str]]:
    """Yield access key, secret key and session token, all of them from one place."""
    families = list(zip(*(_VARIABLES[name] for name in _SECRET), strict=True))
    for get, kind in ((os.environ.get, ""), (_secret, "secret ")):
        for family in families:
            found = {
                name: value
                for name, variable in zip(_SECRET, family, strict=True)
                if (name != "session_token" or get is os.environ.get) and (value := get(variable))
            }
            if get is not os.environ.get and "access_key" in found and (token := get(family[2])):
                found["session_token"] = token
            if "access_key" in found or "secret_key" in found:
                yield from ((name, value, kind + family[_SECRET.index(name)]) for name, value in found.items())
                return
        if get is os.environ.get and any(map(os.environ.get, ROLE_NAMES)):
            return  # the role's keys are fetched when they are needed
    keys = _keys_of_file()
    yield from ((name, keys[key], "~/.aws/credentials") for name, key in _IN_KEYS.items() if keys.get(key))


def _secret(name: str) -> str | None:
    """Return a secret that can be had without asking anybody."""
    from colabkit.colab.fetched_secrets import tell
    from colabkit.colab.place import here
    from colabkit.colab.secret_sources import find_secret
    from colabkit.core.errors import ColabkitError

    if here().answers_secrets:
        from colabkit.colab import userdata

        try:
            return userdata.get(name)
        except (ColabkitError, userdata.SecretNotFoundError, userdata.TimeoutException):
            return None
    value = find_secret(name, somebody_there=False)
    if value:
        tell(value)
    return value


def _keys_of_file() -> dict[str, str]:
    """Return the keys that `aws configure` wrote for the profile in use. Raises: UsageError."""
    path = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials").expanduser()
    profile = os.environ.get("AWS_PROFILE") or "default"
    found = _read_config(path, "credentials file")
    keys = dict(found[profile]) if profile in found else {}
    if os.environ.get("AWS_PROFILE") and "aws_access_key_id" not in keys:
        raise UsageError(
            "The AWS profile has no keys of its own",
            got=profile,
            where=path,
            fix=f'eval "$(aws configure export-credentials --profile {profile} --format env)"',
        )
    return keys


def _read_config(path: Path, what: str) -> configparser.ConfigParser:
    found = configparser.ConfigParser(interpolation=None)
    try:
        found.read(path, encoding="utf-8")
    except (configparser.Error, OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"Cannot read the AWS {what}",
            got=type(error).__name__,
            where=path,
            fix="write it again with `aws configure`",
        ) from None
    return found


def _config_of_profile() -> Mapping[str, str]:
    """Return what ~/.aws/config says of the profile in use. Raises: UsageError."""
    profile = os.environ.get("AWS_PROFILE") or "default"
    found = _read_config(Path(os.environ.get("AWS_CONFIG_FILE") or "~/.aws/config").expanduser(), "configuration file")
    section = "default" if profile == "default" else f"profile {profile}"
    return dict(found[section]) if section in found else {}


def says_yes(variable: str) -> bool:
    """Tell whether a variable of the environment says yes, as Amazon's own tools read it."""
    return os.environ.get(variable, "").lower() in ("true", "1")
