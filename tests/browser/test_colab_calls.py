"""google.colab's calls that need a person, in JupyterLab: a file uploaded by button, a secret typed into the prompt."""

from __future__ import annotations

import hashlib
import json
import secrets

import nbformat
import pytest

from tests.browser.lab import SECONDS
from tests.browser.tidiness import faults_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

UPLOAD = """import hashlib
from colabkit.colab import files, userdata
uploaded = files.upload("inbox")
for name, content in uploaded.items():
    print(name, len(content), hashlib.sha256(content).hexdigest())"""
SECRET = """secret = userdata.get("MY_SECRET")
print("length", len(secret), hashlib.sha256(secret.encode()).hexdigest())"""


@pytest.fixture
def page(lab, open_page):
    kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [nbformat.v4.new_code_cell(source) for source in (UPLOAD, SECRET)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernelspec}), lab.root / "calls.ipynb")
    return open_page("calls.ipynb")


def test_upload_and_secret(page, lab, tmp_path):
    content, secret = secrets.token_bytes(3_000_000), "hf_" + secrets.token_hex(20)
    (tmp_path / "Gespräch 1.wav").write_bytes(content)
    page.run_all()

    button = page.cell("files.upload").get_by_role("button", name="Upload")
    button.wait_for(timeout=1000 * SECONDS)
    page.picture("calls-1-upload")
    with page.page.expect_file_chooser() as chosen:
        button.click()
    chosen.value.set_files(tmp_path / "Gespräch 1.wav")
    expected = f"Gespräch 1.wav {len(content)} {hashlib.sha256(content).hexdigest()}"
    page.wait(lambda: expected in page.outputs("files.upload"), "uploaded file", SECONDS)
    assert (lab.root / "inbox" / "Gespräch 1.wav").read_bytes() == content

    field = page.cell("userdata.get").locator("input.jp-Stdin-input")
    field.wait_for(timeout=1000 * SECONDS)
    assert field.get_attribute("type") == "password", "nobody reads it over the shoulder"
    page.picture("calls-2-secret")
    field.fill(secret)
    field.press("Enter")
    field = page.cell("userdata.get").locator("input.jp-Stdin-input:not([type=password])")
    field.wait_for(timeout=1000 * SECONDS)
    field.press("Enter")
    page.wait_until_done(SECONDS)
    assert f"length {len(secret)} {hashlib.sha256(secret.encode()).hexdigest()}" in page.outputs("userdata.get")
    page.picture("calls-3-finished")
    assert faults_of(page) == [] and page.errors() == []

    saved = json.dumps(page.save())
    assert "length 43" in saved and "widget-view" not in saved, "no widget that would look alive is left in the file"
    assert secret not in saved and secret not in page.page.content() and secret not in lab.log()
