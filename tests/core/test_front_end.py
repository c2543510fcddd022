"""The front end that shows our output and could answer: told by the request at work, in real kernels too."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from colabkit.core.front_end import find_front_end, what_it_does
from colabkit.core.runtime import detect
from tests.core.places import OF_COLAB, OF_JUPYTERLAB, SERVED_BY_COLAB, request


def test_a_product_name_in_the_environment_is_no_front_end(tmp_path):
    env = {
        "VSCODE_PID": "1",
        "TERM_PROGRAM": "vscode",
        "COLAB_GPU": "1",
        "JPY_PARENT_PID": "1",
        "JPY_SESSION_NAME": "a.ipynb",
    }
    assert detect(env, tmp_path, shell=None).front_end == "none"


def test_a_terminal_and_closed_streams(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda: True))
    assert detect({}, tmp_path, shell=None).front_end == "terminal"
    monkeypatch.setattr(sys, "stdin", None)
    assert detect({}, tmp_path, shell=None).front_end == "none"


SEEN = "from colabkit.core.runtime import detect\nfound = detect()\nprint(found.front_end, found.widgets_drawn)"


CLIENT = """
import sys
from jupyter_client import BlockingKernelClient
client = BlockingKernelClient(connection_file=sys.argv[1])
client.load_connection_file(); client.start_channels(); client.wait_for_ready(timeout=30)
client.execute_interactive(sys.argv[2], allow_stdin=sys.argv[3] == "True", timeout=30,
                           output_hook=lambda m: print(m["content"].get("text", ""), end=""))
client.stop_channels()
"""


@pytest.fixture(scope="module")
def kernels():
    """Return a function that starts a real kernel with more environment and hands out (connection file, client)."""
    manager = pytest.importorskip("jupyter_client.manager")
    started = []

    def start(**env):
        started.append(manager.start_new_kernel(kernel_name="python3", env=os.environ | env))
        return started[-1][0].connection_file, started[-1][1]

    yield start
    for kernel, client in started:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)


def test_front_end_in_a_real_kernel(kernels):
    """Of one's own and on a Colab VM; asked by the process that started it and by another; with input and without."""
    for env, expected in (
        ({}, {"mine": ["none", "jupyter"], "another": ["none", "jupyter"]}),
        (SERVED_BY_COLAB, {"mine": ["none", "colab-web"], "another": ["colab-cli", "colab-web"]}),
    ):
        connection, client = kernels(**env)
        for allow_stdin in (False, True):
            seen = []
            client.execute_interactive(
                SEEN,
                allow_stdin=allow_stdin,
                timeout=30,
                output_hook=lambda m, seen=seen: seen.append(m["content"].get("text", "")),
            )
            assert "".join(seen).split()[0] == expected["mine"][allow_stdin], seen
            done = subprocess.run(
                [sys.executable, "-c", CLIENT, connection, SEEN, str(allow_stdin)],
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert done.stdout.split()[:1] == [expected["another"][allow_stdin]], done.stderr


def test_what_the_pages_send_reaches_detect_in_a_real_kernel(kernels):
    _, client = kernels()
    for metadata, front_end in ((OF_COLAB, "colab-web"), (OF_JUPYTERLAB, "jupyterlab")):
        message = client.session.msg(
            "execute_request",
            {
                "code": SEEN,
                "silent": False,
                "store_history": False,
                "user_expressions": {},
                "allow_stdin": True,
                "stop_on_error": True,
            },
            metadata=metadata,
        )
        client.shell_channel.send(message)
        texts = []
        while True:
            heard = client.get_iopub_msg(timeout=30)
            if heard["parent_header"].get("msg_id") != message["header"]["msg_id"]:
                continue
            texts.append(heard["content"].get("text", ""))
            if heard["content"].get("execution_state") == "idle":
                break
        assert "".join(texts).split() == [front_end, "True"], texts


@pytest.mark.parametrize(
    "asked, env, on_colab_vm, kind, draws_widgets",
    [
        (request(metadata=OF_COLAB), {}, False, "colab-web", True),
        (request(metadata={"colab": "no mapping"}), {}, False, "jupyter", False),
        (request(metadata={"colab": {"cell_id": ""}}), {}, True, "colab-web", True),
        (request(metadata={"cellId": "vscode-notebook-cell:/a"}), {}, True, "vscode", True),
        (request(metadata=OF_JUPYTERLAB), {}, True, "jupyterlab", True),
        (request(), {"JPY_SESSION_NAME": "a.ipynb"}, False, "jupyter", True),
        (request(), {"JPY_SESSION_NAME": "console-1"}, False, "jupyter", False),
        (request(allow_stdin=False, sender="4242"), {"JPY_PARENT_PID": "4242"}, True, "none", False),
        (request(allow_stdin=False, sender="4242"), {"JPY_PARENT_PID": "77"}, True, "colab-cli", False),
        (request(allow_stdin=False, sender="4242"), {"JPY_PARENT_PID": "77"}, False, "none", False),
        ({}, {}, True, "none", False),
    ],
)
def test_the_request_tells_who_asked(asked, env, on_colab_vm, kind, draws_widgets):
    of_ipython = SimpleNamespace(kernel=SimpleNamespace(get_parent=lambda: asked), user_ns={})
    found = find_front_end(of_ipython, env, on_colab_vm)
    assert (found.kind, found.draws_widgets) == (kind, draws_widgets), found.reason
    assert what_it_does(found.kind) and found.reason


def test_ipython_is_not_imported_to_find_a_shell():
    code = (
        "import sys; from colabkit.core.front_end import current_shell\n"
        "assert current_shell() is None and 'IPython' not in sys.modules\n"
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance(); assert current_shell() is shell"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
