"""google.colab.auth: make Google credentials available to Google's libraries."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from colabkit.colab import files
from colabkit.colab.errors import AuthorizationError
from colabkit.colab.place import here, in_time, real
from colabkit.colab.refusals import UnsupportedError
from colabkit.core.runtime import Runtime, is_installed

__all__ = ["authenticate_service_account", "authenticate_user"]

_SECONDS = 3.5  # google.auth asks a machine that may not exist, for up to ten seconds, whether this is Google's cloud
_KEY_VARIABLE = "GOOGLE_APPLICATION_CREDENTIALS"
_LOGIN = "run once in a terminal: gcloud auth application-default login"
_TRIES = 3


def authenticate_user(clear_output=True, project_id=None):
    """Make sure that there are application default credentials; elsewhere than on Colab they must be there already.

    `project_id` becomes the default project of Google's libraries. Raises AuthorizationError.
    """
    runtime = here()
    colab = _real(runtime)
    if colab:
        _ask_colab(lambda: colab.authenticate_user(clear_output=clear_output, project_id=project_id))
        return
    if os.environ.get("VERTEX_PRODUCT") == "COLAB_ENTERPRISE":
        print("WARNING: google.colab.auth.authenticate_user() is not supported in Colab Enterprise.")
        return
    _check_project(project_id)
    _find_credentials()
    if project_id is not None:
        _set_project(project_id)


def authenticate_service_account(clear_output=True):
    """Make sure that a service account's key is in use, asking for its file where somebody can give it.

    Raises AuthorizationError; a cancelled upload changes nothing.
    """
    runtime = here()
    colab = _real(runtime)
    if colab:
        _ask_colab(lambda: colab.authenticate_service_account(clear_output=clear_output))
        return
    if os.path.exists(os.path.join(runtime.root, "var/colab/mp")):
        raise UnsupportedError("google.colab.auth is unsupported in this environment", fix=f"set {_KEY_VARIABLE}")
    if _key_in_use():
        return
    if not (runtime.answers_requests or runtime.front_end == "terminal" or os.environ.get(files.VARIABLE)):
        raise AuthorizationError(
            "Failed to fetch user credentials: no service account key, and nobody to upload one",
            fix=f"set {_KEY_VARIABLE} to the key file's path before the notebook starts",
        )
    print("Upload the private key of your service account, a JSON file.")
    for _ in range(_TRIES):
        received = files.receive_one(runtime)
        if received is None:
            return
        key = _as_key(received)
        if key is not None:
            _use_key(key)
            return
        print("Invalid credentials: please try again.")
    raise AuthorizationError(
        "Failed to fetch user credentials: no service account key among the files given",
        fix="create one at https://console.cloud.google.com/iam-admin/serviceaccounts, as JSON",
    )


def _real(runtime: Runtime) -> ModuleType | None:
    return real("auth", runtime, answered=runtime.answers_drive_auth or runtime.on_colab_enterprise)


def _ask_colab(call) -> None:
    try:
        call()
    except Exception as error:
        if type(error).__name__ != "AuthorizationError":
            raise
        raise AuthorizationError(str(error), fix="run the cell again and choose an account") from error


def _find_credentials() -> None:
    if not is_installed("google.auth"):
        raise AuthorizationError(
            "Cannot look for Google credentials: google-auth is not installed", fix="pip install google-auth"
        )
    import google.auth.transport.requests  # noqa: F401 a slow import is no reason to think that Google does not answer

    try:
        answer = in_time(_load_and_try, _SECONDS)
    except Exception as error:  # a file that is broken, of another kind or revoked makes the library raise many things
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise AuthorizationError(f"Failed to fetch user credentials: {reason}", fix=_fix()) from error
    if answer is None:
        if not _credentials_file():
            raise AuthorizationError(
                f"Failed to fetch user credentials: none found within {_SECONDS:g} seconds", fix=_fix()
            )
        answer = "Google did not answer in time"
    if answer:
        print(f"Google credentials found, but not tried: {answer}.")


def _load_and_try() -> str:
    """Load the credentials and get a first token with them; returns why they could not be tried, or ""."""
    import google.auth
    from google.auth.exceptions import TransportError
    from google.auth.transport.requests import Request

    credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/userinfo.email"])
    try:
        credentials.refresh(Request())
    except TransportError:
        return "no connection to Google"
    return ""


def _credentials_file() -> str:
    """Return the file that the credentials come from; "" when only the machine itself could give them."""
    from google.auth import _cloud_sdk

    well_known = _cloud_sdk.get_application_default_credentials_path()
    return next((path for path in (os.environ.get(_KEY_VARIABLE), well_known) if path and os.path.isfile(path)), "")


def _fix() -> str:
    key = os.environ.get(_KEY_VARIABLE)
    if key:
        return f"correct {_KEY_VARIABLE}={key}, or unset it and {_LOGIN}"
    return f"{_LOGIN}; or set {_KEY_VARIABLE} to a key file"


def _check_project(project_id: Any) -> None:
    if project_id is not None and (not isinstance(project_id, str) or not project_id):
        raise AuthorizationError(
            "Cannot set the project",
            got=project_id,
            expected="a project's id",
            fix="gcloud projects list shows the ids",
        )


def _set_project(project_id: str) -> None:
    # Not `gcloud config set project`: that would change the user's own settings for good.
    os.environ["GOOGLE_CLOUD_PROJECT"] = os.environ["GOOGLE_CLOUD_QUOTA_PROJECT"] = project_id


def _key_in_use() -> bool:
    try:
        return _as_key(Path(os.environ.get(_KEY_VARIABLE) or os.devnull).read_bytes()) is not None
    except OSError:
        return False


def _as_key(content: bytes) -> dict | None:
    try:
        key = json.loads(content)
    except ValueError:
        return None
    wanted = ("project_id", "client_email", "private_key", "token_uri")
    is_key = isinstance(key, dict) and key.get("type") == "service_account" and all(key.get(name) for name in wanted)
    return key if is_key else None


def _use_key(key: dict) -> None:
    # A private key outlives this process only where its owner put it.
    folder = Path(tempfile.mkdtemp(prefix="colabkit-key-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / "adc.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(key))
    os.environ[_KEY_VARIABLE] = str(path)
    _set_project(key["project_id"])
    print("Using the credentials of", key["client_email"], "until this process ends")
