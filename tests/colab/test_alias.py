"""Tests of colabkit.colab.alias: google.colab for code that says so, and nobody else fooled.

Each in a process of its own.
"""

from __future__ import annotations

import pytest

from tests.colab.conftest import INSTALL, IS_COLAB, run


@pytest.mark.skipif(not IS_COLAB, reason="google.colab is not installed here")
def test_the_real_one_is_never_replaced(tmp_path):
    """For make test-colab; elsewhere the tests below put a made-up one there."""
    run(
        INSTALL + "import sys, google.colab as real\nassert install() is False and uninstall() is False\n"
        "import google.colab\nassert google.colab is real\n"
        "from google.colab import drive\nassert drive.__name__ == 'google.colab.drive'",
        tmp_path,
    )


@pytest.fixture(autouse=True)
def elsewhere(request):
    if IS_COLAB and request.node.name != "test_the_real_one_is_never_replaced":
        pytest.skip("google.colab itself is installed here: nothing stands in its place")


def test_every_way_to_import_gives_the_same_modules(tmp_path):
    run(
        INSTALL + "assert install() and install()\n"
        "from google.colab import drive, userdata, files, auth\n"
        "import google.colab.output as o, google.colab.data_table\n"
        "import google.colab\nfrom google.colab.errors import AuthorizationError\n"
        "from google.colab.userdata import get\n"
        "import colabkit.colab as ours\n"
        "assert (drive, userdata, files, auth, o) == (ours.drive, ours.userdata, ours.files, ours.auth, ours.output)\n"
        "assert google.colab.data_table is ours.data_table and google.colab.runtime is ours.runtime\n"
        "assert drive.__name__ == drive.__spec__.name == 'colabkit.colab.drive'\n"
        "import importlib; importlib.reload(drive)\n"
        "assert set(ours.alias.MODULES) <= set(dir(google.colab)) and google.colab.__all__",
        tmp_path,
    )


def test_the_module_is_a_proper_package(tmp_path):
    run(
        INSTALL + "import importlib.util, sys\ninstall()\nimport google.colab\n"
        "spec = importlib.util.find_spec('google.colab')\n"
        "assert spec.name == google.colab.__spec__.name == google.colab.__name__ == 'google.colab'\n"
        "assert spec.submodule_search_locations == [] == google.colab.__path__\n"
        "assert importlib.util.find_spec('google.colab.drive').name == 'google.colab.drive'\n"
        "assert importlib.util.find_spec('google.colab.nothing') is None\n"
        "assert repr(google.colab)",
        tmp_path,
    )


@pytest.mark.parametrize(
    "statement",
    [
        "from google.colab import ai",
        "import google.colab.widgets",
        "from google.colab import sql",
        "from google.colab.sheets import InteractiveSheet",
        "from colabkit.colab import ai",
    ],
)
def test_what_is_not_here_says_what_to_use(tmp_path, statement):
    said = run(INSTALL + f"install()\ntry: {statement}\nexcept ImportError as e: print(e)", tmp_path)
    assert "works on Colab only; use instead: " in said


def test_names_that_nobody_has_fail_as_always(tmp_path):
    said = run(
        INSTALL + "install()\nfor s in ('from google.colab import nope', 'import google.colab.nope',\n"
        "          'from colabkit.colab import nope'):\n"
        "    try: exec(s)\n    except ImportError as e: print(type(e).__name__)",
        tmp_path,
    )
    assert said.split() == ["ImportError", "ModuleNotFoundError", "ImportError"]


@pytest.mark.parametrize("before", [True, False])
def test_google_stays_a_namespace_for_its_other_packages(tmp_path, before):
    others = "import google.auth, google.protobuf.message, google.oauth2.credentials\n"
    run(
        (others if before else "")
        + INSTALL
        + "install()\nimport google.colab.drive\n"
        + others
        + "import google\nassert google.__spec__.loader is None or "
        "'amespace' in type(google.__spec__.loader).__name__\n"
        "assert len(list(google.__path__)) >= 1 and google.auth.default and google.colab.drive.mount\n"
        "assert uninstall() and google.auth.default and not hasattr(google, 'colab')\n"
        "import google.api_core",
        tmp_path,
    )


def test_without_anything_of_google_installed_it_works_too_and_later_installs_are_found(tmp_path):
    later = tmp_path / "site"
    run(
        INSTALL
        + "import sys\ntry: import google; raise SystemExit('there is a google here')\nexcept ImportError: pass\n"
        "assert install()\nfrom google.colab import drive\nimport google\n"
        f"import pathlib; p = pathlib.Path({str(later)!r}, 'google', 'later'); p.mkdir(parents=True)\n"
        "(p / '__init__.py').write_text('x = 1'); sys.path.append(str(p.parents[1]))\n"
        "import google.later; assert google.later.x == 1 and google.colab.drive is drive\n"
        "try: import google.never; raise SystemExit('found')\nexcept ModuleNotFoundError: pass\n"
        "assert uninstall() and google.later.x == 1",
        tmp_path,
        isolated=True,
    )


def test_uninstall_leaves_no_trace(tmp_path):
    run(
        INSTALL + "import sys\nbefore = set(sys.modules), list(sys.meta_path)\n"
        "install(); import google.colab.drive; assert uninstall() and not uninstall()\n"
        "assert not [m for m in sys.modules if m.startswith('google.colab')] and sys.meta_path == before[1]\n"
        "try: import google.colab; raise SystemExit('still there')\nexcept ModuleNotFoundError: pass\n"
        "install(); from google.colab import drive; uninstall()\n"
        "assert not [m for m in sys.modules if m.partition('.')[0] == 'google' and m != 'google']",
        tmp_path,
    )


@pytest.mark.parametrize("loaded", [True, False])
def test_never_over_the_real_one(tmp_path, loaded):
    colab = tmp_path / "real" / "google" / "colab"
    colab.mkdir(parents=True)
    (colab / "__init__.py").write_text("real = True")
    run(
        INSTALL + ("import google.colab\n" if loaded else "") + "assert install() is False and uninstall() is False\n"
        "import google.colab, sys; assert google.colab.real and not hasattr(google.colab, 'drive')",
        tmp_path,
        colab.parents[1],
    )


def test_a_stand_in_that_a_test_put_there_stays(tmp_path):
    run(
        "import sys, types; sys.modules['google.colab'] = stand_in = types.SimpleNamespace(x=1)\n"
        + INSTALL
        + "assert install() is False and uninstall() is False and sys.modules['google.colab'] is stand_in",
        tmp_path,
    )


def test_importing_colabkit_colab_changes_nothing(tmp_path):
    run(
        "import sys, os\nbefore = dict(os.environ), list(sys.meta_path)\n"
        "import colabkit.colab\nfrom colabkit.colab import drive, files, userdata, auth, output, runtime, data_table\n"
        "assert 'google.colab' not in sys.modules and 'google' not in sys.modules\n"
        "assert not {'IPython', 'ipywidgets', 'torch', 'pandas', 'keyring', 'dotenv', 'numpy'} & set(sys.modules)\n"
        "assert before == (dict(os.environ), sys.meta_path)",
        tmp_path,
    )


def test_libraries_are_fooled_no_more_than_the_name(tmp_path):
    run(
        INSTALL + "import os, sys\nbefore = dict(os.environ); install(); assert dict(os.environ) == before\n"
        "assert 'COLAB_' not in ''.join(os.environ)\n"
        "from colabkit.core.runtime import detect; assert not detect().on_colab_vm",
        tmp_path,
    )


def test_hugging_face_hub_gets_its_token(tmp_path):
    pytest.importorskip("huggingface_hub")
    environment = f"import os; os.environ.update(HF_HOME={str(tmp_path / 'hf')!r}); os.environ.pop('HF_TOKEN', None)\n"
    run(
        environment + INSTALL + "install(); import google.colab.userdata\n"
        "from huggingface_hub import get_token; from huggingface_hub.utils import is_google_colab\n"
        "assert not is_google_colab() and get_token() is None\n"
        "os.environ['HF_TOKEN'] = 'hf_x'; assert get_token() == 'hf_x'\n"
        # Where it does take this for Colab, our module answers in its terms: a token, and None when there is none.
        "from huggingface_hub.utils import _auth\n_auth.is_google_colab = lambda: True\ndel os.environ['HF_TOKEN']\n"
        "assert get_token() is None\n_auth._IS_GOOGLE_COLAB_CHECKED = False\n"
        "open('.env', 'w').write('HF_TOKEN=hf_y'); assert get_token() == 'hf_y'",
        tmp_path,
    )
