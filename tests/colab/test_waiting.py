"""Tests of colabkit.colab.waiting and upload_widget in real kernels: a running cell receives what its widgets send."""

from __future__ import annotations

import queue

import pytest

from tests.colab.kernels import Kernel, Ran, kernel

pytest.importorskip("ipywidgets")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A kernel whose client is a page that draws widgets."""
    with kernel(tmp_path_factory.mktemp("page"), allow_stdin=True) as started:
        started.run("from colabkit.colab import files; import ipywidgets")
        yield started


def give(page: Kernel, *named: tuple[str, bytes], **header):
    """Upload files once the button is there, as its version sends them: ipywidgets 7 (models 1) or 8 (models 2)."""

    def act(ran: Ran) -> bool:
        button = ran.find("FileUploadModel")
        if not button or not ran.shown:
            return False
        contents = [content for _, content in named]
        entries = [{"name": name, "type": "", "size": len(content)} for name, content in named]
        if ran.widgets[button]["_model_module_version"].startswith("1."):
            state = {
                "metadata": [entry | {"lastModified": 1700000000000} for entry in entries],
                "error": "",
                "_counter": len(named),
            }
            state["data"] = [None] * len(named)
            page.widget(button, state, [("data", n) for n in range(len(named))], contents, **header)
        else:
            state = {"value": [entry | {"last_modified": 1700000000000} for entry in entries]}
            page.widget(button, state, [("value", n, "content") for n in range(len(named))], contents, **header)
        return True

    return act


def press_cancel(page: Kernel):
    def act(ran: Ran) -> bool:
        button = ran.find("ButtonModel", description="Cancel")
        if button and ran.shown:
            page.press(button)
        return bool(button and ran.shown)

    return act


def test_files_come_while_the_cell_runs(page):
    ran = page.run("got = files.upload(); print(got)", act=give(page, ("ä b.txt", b"abc"), ("empty", b"")), timeout=30)
    assert ran.error == "" and ran.text.splitlines() == [
        "Saving ä b.txt to ä b.txt",
        "Saving empty to empty",
        "{'ä b.txt': b'abc', 'empty': b''}",
    ]
    assert set(ran.closed) == {
        id
        for id, state in ran.widgets.items()
        if state.get("_model_module") != "@jupyter-widgets/base" and not state["_model_name"].endswith("StyleModel")
    }
    assert ran.shown == [{"text/plain": "Uploaded: ä b.txt, empty"}], "no dead widget stays in the notebook"


def test_the_place_says_what_to_do_where_no_button_is_drawn(page):
    seen = []

    def act(ran: Ran) -> bool:
        seen[:] = list(ran.shown) or seen
        return press_cancel(page)(ran)

    page.run("files.upload()", act=act, timeout=30)
    assert "COLABKIT_UPLOADS" in seen[0]["text/plain"] and "application/vnd.jupyter.widget-view+json" in seen[0]


def test_cells_sent_meanwhile_run_afterwards_in_order(page):
    sent: list[str] = []

    def act(ran: Ran) -> bool:
        if not ran.find("FileUploadModel") or not ran.shown:
            return False
        sent.extend(page.send(f"order.append({n}); print(order)") for n in range(1, 4))
        return give(page, ("x", b"x"))(ran)

    page.run("order = []; files.upload(); order.append(0)", act=act, timeout=30)
    assert [page.collect(id).text for id in sent] == ["[0, 1]\n", "[0, 1, 2]\n", "[0, 1, 2, 3]\n"]


def test_cells_sent_meanwhile_are_dropped_when_the_cell_fails(page):
    sent: list[str] = []

    def act(ran: Ran) -> bool:
        if not ran.find("FileUploadModel") or not ran.shown:
            return False
        sent.append(page.send("print('must not run')"))
        return press_cancel(page)(ran)

    ran = page.run("files.upload_file('x')", act=act, timeout=30)
    assert ran.error == "NotUploadedError" and "File has not been uploaded" in ran.error_text
    assert page.collect(sent[0]).text == "" and page.run("print('goes on')").text == "goes on\n"


def test_cancel_gives_nothing(page):
    ran = page.run("print(files.upload())", act=press_cancel(page), timeout=30)
    assert ran.text == "{}\n" and ran.shown == [{"text/plain": "Uploaded: nothing"}]


def test_a_path_may_be_typed_instead(page):
    def act(ran: Ran) -> bool:
        field = ran.find("TextModel")
        if field and ran.shown:
            page.widget(field, {"value": " typed.txt "})
        return bool(field and ran.shown)

    ran = page.run("open('typed.txt', 'w').write('t'); print(files.upload('to'))", act=act, timeout=30)
    assert ran.error == "" and "{'to/typed.txt': b't'}" in ran.text, ran


def test_one_file_to_a_given_name(page):
    ran = page.run(
        "files.upload_file('named'); print(open('named').read())", act=give(page, ("x.bin", b"one")), timeout=30
    )
    assert ran.text.splitlines()[1] == "one" and ran.text.startswith("Saved x.bin to /")


def test_a_large_file(page):
    ran = page.run("print(len(files.upload()['large']))", act=give(page, ("large", bytes(9_000_000))), timeout=60)
    assert ran.text.splitlines()[-1] == "9000000"


def test_an_interrupt_ends_the_waiting_and_nothing_else(page):
    def act(ran: Ran) -> bool:
        if ran.shown:
            page.manager.interrupt_kernel()
        return bool(ran.shown)

    ran = page.run("files.upload()", act=act, timeout=30)
    assert ran.error == "KeyboardInterrupt" and ran.shown == [{"text/plain": "Uploaded: nothing"}]
    assert page.run("print(files.upload())", act=give(page, ("after", b"")), timeout=30).text.endswith(
        "{'after': b''}\n"
    )


def test_messages_may_come_by_a_subshell(page):
    """JupyterLab sends what widgets say to a subshell of the kernel, a thread of its own, where the kernel has them."""
    client = page.client
    client.control_channel.send(client.session.msg("create_subshell_request"))
    try:
        reply = client.get_control_msg(timeout=10)["content"]
    except queue.Empty:  # one of before 7.0 does not answer
        reply = {}
    if reply.get("status") != "ok":
        pytest.skip("this kernel has no subshells")
    for _ in range(2):
        ran = page.run(
            "print(files.upload())", act=give(page, ("s", b"s"), subshell_id=reply["subshell_id"]), timeout=30
        )
        assert ran.error == "" and "b's'" in ran.text


def test_a_thread_of_the_users_may_wait_too(page):
    code = (
        "from concurrent.futures import ThreadPoolExecutor\nimport asyncio\n"
        "result = await asyncio.get_running_loop().run_in_executor(ThreadPoolExecutor(1), files.upload)\nprint(result)"
    )
    ran = page.run(code, act=give(page, ("t", b"t")), timeout=30)
    if page.run("print(hasattr(get_ipython().kernel, 'shell_channel_thread'))").text == "True\n":
        assert "{'t': b't'}" in ran.text, ran
    else:  # before ipykernel 7
        assert ran.error == "StateError" and "COLABKIT_UPLOADS" in ran.error_text and ran.seconds < 20, ran


def test_the_kernel_is_as_before(page):
    ran = page.run("print(input('name? '))", answers=("me",))
    assert ran.text == "me\n" and ran.asked == [("name? ", False)]
    ran = page.run("box = ipywidgets.IntText(); display(box)")
    page.widget(ran.find("IntTextModel"), {"value": 7})
    assert page.run("print(box.value)").text == "7\n"
