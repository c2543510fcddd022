"""google.colab.output on a page other than Colab's: areas cleared by tag, JavaScript, pages of the kernel's machine."""

from __future__ import annotations

import threading

import pytest

from colabkit.colab import output


def test_temporary_output_goes(page):
    ran = page.run("with output.temporary():\n    print('inside')\nprint('after')")
    area = ran.find("OutputModel")
    assert area and area in ran.closed and ran.shown == [{"text/html": ""}] and ran.text.endswith("after\n")


def test_temporary_output_stays_when_it_fails(page):
    ran = page.run("with output.temporary():\n    print('inside'); 1 / 0")
    assert ran.error == "ZeroDivisionError" and ran.find("OutputModel") not in ran.closed
    assert ran.widgets[ran.find("OutputModel")]["msg_id"] == "", "what comes later is shown outside again"


def test_tagged_output_is_cleared_by_tag(page):
    code = (
        "with output.use_tags('talk'):\n    print('a')\n    with output.use_tags('intro'):\n        print('b')\n"
        "with output.use_tags('other', append=False) as tags: print(tags)\n"
    )
    ran = page.run(code + "output.clear(output_tags=['intro', 'talk'])")
    assert len(ran.closed) == 1 and sum(data == {"text/html": ""} for data in ran.shown) == 1
    ran = page.run("output.clear(output_tags='talk'); output.clear(output_tags='unknown')")
    assert len(ran.closed) == 1
    assert len(page.run("output.clear(output_tags=('other',))").closed) == 1


def test_javascript_runs_without_a_result(page):
    assert "application/javascript" in page.run("output.eval_js('x = 1', ignore_result=True)").shown[0]
    assert page.run("output.eval_js('x')").error == "UnsupportedError"


def test_pages_served_by_the_kernels_machine(page):
    ran = page.run(
        "output.serve_kernel_port_as_iframe(80, '/p\"', height='9')\n"
        "output.serve_kernel_port_as_window(80, anchor_text='<go>')"
    )
    frame, link = [data["text/html"] for data in ran.shown]
    assert 'src="http://localhost:80/p&quot;"' in frame and 'height="9"' in frame and "&lt;go&gt;" in link
    ran = page.run(
        "import os; os.environ['JUPYTERHUB_SERVICE_PREFIX'] = '/user/me/'\noutput.serve_kernel_port_as_iframe(80, 'p')"
    )
    assert 'src="/user/me/proxy/80/p"' in ran.shown[0]["text/html"]


def test_tags_add_up_inside_each_other_in_each_thread_apart():
    seen = []
    with output.use_tags("a") as outer, output.use_tags(("b", "c")) as inner:
        thread = threading.Thread(target=lambda: seen.append(output._tags.__dict__.copy()))
        thread.start()
        thread.join()
        with output.use_tags("d", append=False) as alone:
            assert (outer, inner, alone) == ({"a"}, {"a", "b", "c"}, {"d"})
    with output.use_tags([]) as after:
        assert after == set() and seen == [{}]


def test_a_callback_is_known_until_it_is_taken_back():
    output.register_callback("f", print)
    output.unregister_callback("f")
    with pytest.raises(ValueError, match="not registered: f"):
        output.unregister_callback("f")
