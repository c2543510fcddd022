"""Names, signatures, exceptions and refusals of colabkit.colab: google.colab's, as record_api.py wrote them down."""

from __future__ import annotations

import inspect
import json
from importlib import import_module
from pathlib import Path

import pytest

from colabkit.colab.alias import INSTEAD, MODULES
from tests.colab.record_api import API, describe

RECORDED = json.loads(API.read_text(encoding="utf-8"))
COVERED = {name: module for name, module in RECORDED["modules"].items() if name in MODULES}
DEVIATIONS = {  # deliberate, with the reason
    ("data_table.DataTable", "base DisplayObject"): "IPython is imported only where something is displayed",
    (
        "auth.authenticate_user",
        "raises NotImplementedError",
    ): "only inside Google's own network, where the real one is called",
    ("auth.authenticate_service_account", "raises NotImplementedError"): "only inside Google's own network, as above",
    ("drive.flush_and_unmount", "raises NotImplementedError"): "only inside Google's own network, as above",
    ("drive.flush_and_unmount", "raises ValueError"): "Drive's own program failed; elsewhere there is none",
}


def ours(name: str):
    return import_module(f"colabkit.colab.{name}")


def functions():
    return [
        pytest.param(module, name, spec, id=f"{module}.{name}")
        for module, found in sorted(COVERED.items())
        for name, spec in sorted(found["functions"].items())
    ]


def classes():
    return [
        pytest.param(module, name, spec, id=f"{module}.{name}")
        for module, found in sorted(COVERED.items())
        for name, spec in sorted(found["classes"].items())
    ]


def shape(function) -> list[list]:
    return [
        [p.name, p.kind.name, None if p.default is p.empty else repr(p.default)]
        for p in inspect.signature(function).parameters.values()
    ]


def test_the_record_is_whole_and_says_where_it_comes_from():
    assert RECORDED["source"] == "https://github.com/googlecolab/colabtools" and len(RECORDED["commit"]) == 40
    assert len(COVERED) >= 11 and len(functions()) >= 36 and len(classes()) >= 8
    assert RECORDED["modules"]["drive"]["functions"]["mount"]["parameters"][1] == [
        "force_remount",
        "POSITIONAL_OR_KEYWORD",
        "False",
    ]


def test_every_module_is_covered_or_said_to_be_absent():
    assert set(RECORDED["modules"]) <= set(MODULES) | set(INSTEAD)
    assert not set(MODULES) & set(INSTEAD)
    for name in INSTEAD:
        with pytest.raises(ImportError, match="use instead"):
            getattr(import_module("colabkit.colab"), name)


@pytest.mark.parametrize("module", sorted(COVERED))
def test_public_names(module):
    wanted = {*COVERED[module].get("all", ()), *COVERED[module]["functions"], *COVERED[module]["classes"]}
    missing = sorted(name for name in wanted if not hasattr(ours(module), name))
    assert not missing
    assert wanted <= set(ours(module).__all__) | set(missing)


@pytest.mark.parametrize("module, name, spec", functions())
def test_functions_have_the_same_signature(module, name, spec):
    function = getattr(ours(module), name)
    assert shape(function) == spec["parameters"]
    is_manager = inspect.isgeneratorfunction(getattr(function, "__wrapped__", None))
    assert is_manager == spec["contextmanager"]


@pytest.mark.parametrize("module, name, spec", classes())
def test_classes_have_the_same_ancestors_methods_and_attributes(module, name, spec):
    kind = getattr(ours(module), name)
    ancestors = {ancestor.__name__ for ancestor in kind.__mro__}
    lacking = [
        base
        for base in spec["bases"]
        if base not in ancestors and (f"{module}.{name}", f"base {base}") not in DEVIATIONS
    ]
    assert not lacking
    # An exception that google.colab does not derive from its Error must not be caught by `except Error` here either.
    if "Exception" in spec["bases"] and name != "Error":
        assert "Error" not in ancestors
    for method, its in spec["methods"].items():
        function = inspect.getattr_static(kind, method)
        assert shape(getattr(function, "__func__", function)) == its["parameters"]
    assert {a: repr(getattr(kind, a)) for a in spec["attributes"]} == spec["attributes"]


# What is raised on what: a case for every pair of function and exception in the record.


def _on_colab(error: str):
    """Have userdata.get raise what the real google.colab raises."""

    def case(monkeypatch, tmp_path):
        stand_in = type("Colab", (), {"get": lambda key: (_ for _ in ()).throw(getattr(stand_in, error)(key))})
        for name in ("SecretNotFoundError", "NotebookAccessError", "TimeoutException"):
            setattr(stand_in, name, type(name, (Exception,), {}))
        monkeypatch.setattr(ours("userdata"), "real", lambda *_, **__: stand_in)
        ours("userdata").get("A")

    return case


def _no_drive(monkeypatch, tmp_path):
    monkeypatch.delenv("COLABKIT_DRIVE", raising=False)
    ours("drive").mount(str(tmp_path / "drive"))


def _space(monkeypatch, tmp_path):
    monkeypatch.setenv("COLABKIT_DRIVE", str(tmp_path))
    ours("drive").mount(str(tmp_path / "my drive"))


def _no_credentials(call):
    def case(monkeypatch, tmp_path):
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
        call()

    return case


def _not_uploaded(monkeypatch, tmp_path):
    monkeypatch.setenv("COLABKIT_UPLOADS", " ")
    ours("files").upload_file(str(tmp_path / "x"))


CASES = {
    ("auth.authenticate_user", "AuthorizationError"): _no_credentials(lambda: ours("auth").authenticate_user()),
    ("auth.authenticate_service_account", "AuthorizationError"): _no_credentials(
        lambda: ours("auth").authenticate_service_account()
    ),
    ("drive.mount", "NotImplementedError"): _no_drive,
    ("drive.mount", "ValueError"): _space,
    ("files.download", "FileNotFoundError"): lambda *_: ours("files").download("is not here"),
    ("files.view", "FileNotFoundError"): lambda *_: ours("files").view("is not here"),
    ("files.upload_file", "ValueError"): _not_uploaded,
    ("output.clear", "ValueError"): lambda *_: ours("output").clear(wait=1),
    # only clear(), which it calls, raises it
    ("output.temporary", "ValueError"): lambda *_: ours("output").clear(wait="no"),
    ("output.enable_custom_widget_manager", "ValueError"): lambda *_: ours("output").enable_custom_widget_manager("7"),
    ("output.unregister_callback", "ValueError"): lambda *_: ours("output").unregister_callback("never registered"),
    ("runtime.unassign", "RuntimeManagementError"): lambda *_: ours("runtime").unassign(),
    ("userdata.get", "ValueError"): lambda *_: ours("userdata").get("has space"),
    ("userdata.get", "SecretNotFoundError"): lambda *_: ours("userdata").get("COLABKIT_NO_SUCH_SECRET"),
    ("userdata.get", "TimeoutException"): _on_colab("TimeoutException"),
    # The switch beside a secret is on Colab's page: raised there only.
    ("userdata.get", "NotebookAccessError"): _on_colab("NotebookAccessError"),
}


def raising():
    return [
        (f"{module}.{name}", error)
        for module, found in sorted(COVERED.items())
        for name, spec in sorted(found["functions"].items())
        for error in spec["raises"]
    ]


def test_every_recorded_refusal_has_a_case_or_is_a_deviation():
    pairs = set(raising())
    assert pairs == set(CASES) | {
        (name, what.removeprefix("raises ")) for name, what in DEVIATIONS if what.startswith("raises")
    }
    assert not set(CASES) & {(name, what.removeprefix("raises ")) for name, what in DEVIATIONS}


@pytest.mark.parametrize("name, error", CASES, ids=[f"{name}-{error}" for name, error in CASES])
def test_the_same_exceptions_are_raised(name, error, monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
    with pytest.raises(Exception) as caught:
        CASES[name, error](monkeypatch, tmp_path)
    assert error in {ancestor.__name__ for ancestor in type(caught.value).__mro__}
    assert "fix:" in str(caught.value)


def test_the_recorder_reads_what_python_means():
    source = (
        'import errors\n__all__ = ["f", "C"]\n_x = "5"\n'
        "def f(a, /, b=2 * 3, *c, d=_x, **e):\n    g()\n"
        "def g():\n    if 1:\n        raise errors.Bad('x')\n    f()\n    raise ValueError\n"
        "class C(errors.Error):\n    y = 1\n    def __init__(self, key): pass\n    def _hidden(self): pass\n"
    )
    found = describe(lambda path: source, "google/colab/m.py")
    assert found["all"] == ["C", "f"] and list(found["functions"]) == ["f"]
    assert found["functions"]["f"]["parameters"] == [
        ["a", "POSITIONAL_ONLY", None],
        ["b", "POSITIONAL_OR_KEYWORD", "6"],
        ["c", "VAR_POSITIONAL", None],
        ["d", "KEYWORD_ONLY", "'5'"],
        ["e", "VAR_KEYWORD", None],
    ]
    assert found["functions"]["f"]["raises"] == ["Bad", "ValueError"]
    assert found["classes"]["C"] == {
        "bases": ["Error"],
        "attributes": {"y": "1"},
        "methods": {
            "__init__": {
                "parameters": [["self", "POSITIONAL_OR_KEYWORD", None], ["key", "POSITIONAL_OR_KEYWORD", None]],
                "contextmanager": False,
            }
        },
    }


def test_no_path_of_a_machine_is_in_the_record():
    text = Path(API).read_text(encoding="utf-8")
    assert "/home" not in text and "/root" not in text and "/tmp" not in text
