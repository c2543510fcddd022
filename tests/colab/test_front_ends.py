"""What each kind of front end gets, in real kernels: a page, a console, nobody at all, and a Colab VM's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.colab.kernels import ALL, kernel

VALUE = "s3cret-value"


@pytest.fixture(scope="module")
def headless(tmp_path_factory):
    """A kernel as papermill and nbclient drive it: nobody answers."""
    with kernel(tmp_path_factory.mktemp("headless"), allow_stdin=False) as started:
        started.run(ALL + "open('x.txt', 'w').write('x')")
        yield started


HEADLESS = {  # code: the exception it ends with, and a word its text must hold; "" for none
    "userdata.get('TOKEN')": ("SecretNotFoundError", "environment variable TOKEN"),
    "files.upload()": ("NotUploadedError", "COLABKIT_UPLOADS"),
    "files.upload_file('y')": ("NotUploadedError", "COLABKIT_UPLOADS"),
    "files.download('x.txt')": ("", "x.txt"),
    "files.view('x.txt')": ("", "x.txt"),
    "drive.mount('drive')": ("UnsupportedError", "COLABKIT_DRIVE"),
    "drive.flush_and_unmount()": ("", "nothing to flush"),
    "auth.authenticate_user()": ("AuthorizationError", "gcloud auth application-default login"),
    "auth.authenticate_service_account()": ("AuthorizationError", "GOOGLE_APPLICATION_CREDENTIALS"),
    "output.eval_js('1 + 1')": ("UnsupportedError", "ignore_result=True"),
    "output.eval_js('1 + 1', timeout_sec=600)": ("UnsupportedError", "ignore_result=True"),
    "output.eval_js('1 + 1', ignore_result=True)": ("", ""),
    "output.clear()": ("", ""),
    "with output.temporary(): print('shown')": ("", "shown"),
    "with output.use_tags(['a', 'b']) as tags: print(sorted(tags))": ("", "['a', 'b']"),
    "with output.redirect_to_element('#x'), output.to_header_area(), output.to_footer_area(): print('y')": ("", "y"),
    "with output.to_default_area(): output.no_vertical_scroll()": ("", ""),
    "output.serve_kernel_port_as_iframe(8080, 'a')": ("", "http://localhost:8080/a"),
    "output.serve_kernel_port_as_window(8080)": ("", "http://localhost:8080/"),
    "output.enable_custom_widget_manager(); output.disable_custom_widget_manager()": ("", ""),
    "output.register_callback('f', print); output.unregister_callback('f')": ("", ""),
    "runtime.unassign()": ("RuntimeManagementError", "nothing to give back"),
    "snippets.register('https://x.org/n.ipynb')": ("", ""),
    "data_table.enable_dataframe_formatter(); data_table.disable_dataframe_formatter()": ("", ""),
    "print(syntax.sql('select'), syntax.html('a'), syntax.css('b'), syntax.javascript('c'))": ("", "select a b c"),
}


@pytest.mark.parametrize("code", HEADLESS)
def test_headless_no_call_waits(headless, code):
    ran = headless.run(code, timeout=20)
    error, words = HEADLESS[code]
    assert (ran.error, ran.asked) == (error, []) and ran.seconds < 5, ran
    assert words in (ran.error_text or ran.text)


def test_headless_the_kernel_lives_on_after_unassign(headless):
    assert headless.run("print(1)").text == "1\n"


# A page


def test_a_secret_is_asked_for_once_and_shown_nowhere(page):
    ran = page.run("print(len(userdata.get('A')), userdata.get('A') == userdata.get('A'))", answers=(f" {VALUE} ", ""))
    assert ran.error == "" and ran.text == f"{len(VALUE)} True\n"
    assert [password for _, password in ran.asked] == [True, False] and all(" A " in prompt for prompt, _ in ran.asked)
    assert VALUE not in ran.text + str(ran.shown) + str(ran.asked) + str(ran.widgets)
    assert page.run(f"print({VALUE!r} in userdata.fetched_values())").text == "True\n"
    ran = page.run("userdata.forget('A'); userdata.get('A')", answers=("",))
    assert ran.error == "SecretNotFoundError" and len(ran.asked) == 1


def test_a_secret_need_not_be_remembered(page):
    ran = page.run("print(userdata.get('B') == userdata.get('B'))", answers=("x", "n", "x", "No"))
    assert ran.text == "True\n" and len(ran.asked) == 4


def test_an_environment_variable_saves_the_question(page):
    ran = page.run("import os; os.environ['C'] = 'v'; print(userdata.get('C'))")
    assert ran.text == "v\n" and ran.asked == []


def test_a_closed_input_is_no_secret(page):
    ran = page.run("userdata.get('D')", answers=("\x04",))
    assert ran.error == "SecretNotFoundError"


def test_links_to_files(page):
    ran = page.run(
        "open('small.txt', 'w').write('hi'); open('big.bin', 'wb').write(b'x' * (2**20 + 1))\n"
        "files.download('small.txt'); files.download('big.bin'); files.view('small.txt')"
    )
    assert ran.error == "" and len(ran.shown) == 3 and ran.text == ""
    small, big, view = [data["text/html"] for data in ran.shown]
    assert 'download="small.txt" href="data:text/plain;base64,aGk="' in small
    assert 'download="big.bin" href="big.bin"' in big and 'href="small.txt"' in view
    assert all(data["text/plain"].startswith("/") for data in ran.shown)
    elsewhere = page.run(
        "import tempfile; p = tempfile.mkdtemp() + '/big.bin'; open(p, 'wb').write(b'x' * (2**20 + 1))\n"
        "files.download(p)"
    ).shown[0]["text/html"]
    assert "href" not in elsewhere and "/big.bin</code>" in elsewhere


# A console


def test_a_console_is_asked_for_paths(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    with kernel(tmp_path, allow_stdin=True, metadata={}) as console:
        console.run(ALL)
        ran = console.run("print(files.upload('to'))", answers=("a.txt",))
        assert "{'to/a.txt': b'a'}" in ran.text and ran.widgets == {}
        assert console.run("print(files.upload())", answers=("",)).text == "{}\n"
        assert console.run("files.upload()", answers=("no.txt",)).error == "NoSuchFileError"


# A Colab VM, whose google.colab is a stand-in that says what it was asked


REAL = {
    "userdata": "class SecretNotFoundError(Exception): pass\nclass NotebookAccessError(Exception): pass\n"
    "class TimeoutException(Exception): pass\ndef get(key): return 'vault:' + key",
    "files": "def upload(target_dir): return {'real': target_dir}\n"
    "def download(filename): print('real download', filename)",
    "output": "def eval_js(script, ignore_result=False, timeout_sec=None): return ('real', script, timeout_sec)",
    "auth": "def authenticate_user(clear_output=True, project_id=None): print('real auth', project_id)",
    "runtime": "def unassign(): print('real unassign')",
    "drive": "def mount(*a, **k): print('real mount', *a)\ndef flush_and_unmount(timeout_ms): print('real flush')",
}


def colab_vm(folder: Path) -> dict[str, str]:
    package = folder / "vm" / "google" / "colab"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    # As the real one has it: without, a real one that is installed would come first.
    (package.parent / "__init__.py").write_text(
        "from pkgutil import extend_path\n__path__ = extend_path(__path__, __name__)\n"
    )
    for name, text in REAL.items():
        (package / f"{name}.py").write_text(text)
    root = Path(__file__).resolve().parents[2]
    return {
        "PYTHONPATH": f"{package.parents[1]}:{root}",
        "COLAB_RELEASE_TAG": "release-colab",
        "TBE_RUNTIME_ADDR": "127.0.0.1:9",
        "COLAB_JUPYTER_IP": "127.0.0.1",
    }


def test_on_a_vm_the_real_one_is_called(tmp_path):
    with kernel(tmp_path, allow_stdin=True, metadata={"colab": {"cell_id": "x"}}, **colab_vm(tmp_path)) as vm:
        ran = vm.run(
            ALL + "print(userdata.get('A'), files.upload('d'), output.eval_js('1', timeout_sec=3))\n"
            "auth.authenticate_user(project_id='p'); runtime.unassign(); drive.mount('/content/other')\n"
            "drive.flush_and_unmount(); open('f', 'w').write('x'); files.download('f')\n"
            "print('vault:A' in userdata.fetched_values())\n"
            "from colabkit.colab import install; print(install())"
        )
        assert ran.text.splitlines() == [
            "vault:A {'real': 'd'} ('real', '1', 3)",
            "real auth p",
            "real unassign",
            "real mount /content/other",
            "real flush",
            "real download f",
            "True",
            "False",
        ], ran


def test_headless_on_a_vm_nothing_that_would_hang_is_called(tmp_path):
    with kernel(tmp_path, allow_stdin=False, **colab_vm(tmp_path)) as vm:
        vm.run(ALL)
        for code, error in (
            ("userdata.get('A')", "TimeoutException"),
            ("files.upload()", "NotUploadedError"),
            ("output.eval_js('1')", "UnsupportedError"),
            ("drive.mount('/content/drive')", "MountError"),
            ("auth.authenticate_user()", "AuthorizationError"),
        ):
            ran = vm.run(code, timeout=20)
            assert ran.error == error and ran.seconds < 5 and "fix:" in ran.error_text, ran
        assert vm.run("import os; os.environ['A'] = 'v'; print(userdata.get('A'))").text == "v\n"
        assert vm.run("runtime.unassign()").text == "real unassign\n"
