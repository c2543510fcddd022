"""google.colab.files: hand files to the notebook and take them from it."""

from __future__ import annotations

import os

from colabkit.colab.file_links import show_download, show_view
from colabkit.colab.place import here, real
from colabkit.colab.refusals import NoSuchFileError, NotAFileError, NotUploadedError
from colabkit.colab.upload_widget import ask_for_files
from colabkit.core.runtime import Runtime

__all__ = ["download", "upload", "upload_file", "view"]

VARIABLE = "COLABKIT_UPLOADS"


def upload_file(filename):
    """Take one file from the user and write it to `filename`; ValueError when none or several are given."""
    runtime = here()
    colab = real("files", runtime, answered=runtime.answers_javascript)
    if colab:
        colab.upload_file(filename)
        return
    received = _receive(runtime, multiple=False)
    if not received:
        raise NotUploadedError(
            "File has not been uploaded", fix=f"run the cell again and choose a file, or set {VARIABLE}"
        )
    if len(received) > 1:
        raise NotUploadedError(
            "Multiple files received, please upload a single file",
            got=[name for name, _ in received],
            fix=f"name one file in {VARIABLE}, or call files.upload()",
        )
    name, content = received[0]
    with open(filename, "wb") as file:
        file.write(content)
    print(f"Saved {name} to {os.path.join(os.getcwd(), filename)}")


def upload(target_dir=""):
    """Take files from the user and write them to `target_dir`; returns {path written: content}.

    COLABKIT_UPLOADS names files, separated like PATH, that are taken without asking. Cancelled, it returns {}.
    """
    runtime = here()
    colab = real("files", runtime, answered=runtime.answers_javascript)
    if colab:
        return colab.upload(target_dir)
    received = _receive(runtime, multiple=True)
    if target_dir:
        os.makedirs(target_dir, exist_ok=True)
    return dict(_save(name, content, target_dir) for name, content in received)


def download(filename):
    """Show a link that saves the file on the user's machine; headless, print where it is.

    FileNotFoundError if it is not.
    """
    _require_exists(filename)
    runtime = here()
    colab = real("files", runtime, answered=runtime.answers_javascript)
    if colab:
        colab.download(filename)
        return
    if not os.path.isfile(filename):
        raise NotAFileError(
            f"Cannot download {filename}: it is not a file",
            fix="pack it first: "
            f"shutil.make_archive('download', 'zip', {os.fspath(filename)!r}), then download('download.zip')",
        )
    _show(show_download, filename, runtime)


def view(filepath):
    """Show a link that opens the file or folder; headless, print where it is. FileNotFoundError if it is not."""
    _require_exists(filepath)
    runtime = here()
    colab = real("files", runtime, answered=runtime.answers_javascript)
    if colab:
        colab.view(filepath)
        return
    _show(show_view, filepath, runtime)


def receive_one(runtime: Runtime) -> bytes | None:
    """Return the content of one file that the user gives; None when they give none."""
    received = _receive(runtime, multiple=False)
    return received[0][1] if received else None


def _show(show, path, runtime: Runtime) -> None:
    if runtime.answers_requests:
        show(os.fspath(path))
    else:
        print(os.path.abspath(path))


def _require_exists(path) -> None:
    if not os.path.exists(path):
        raise NoSuchFileError(
            f"Cannot find file: {os.fspath(path)}",
            where=f"the working directory {os.getcwd()}",
            fix="give the file's whole path",
        )


def _receive(runtime: Runtime, *, multiple: bool) -> list[tuple[str, bytes]]:
    given = os.environ.get(VARIABLE)
    if given:
        return _read(given, VARIABLE)
    several = f"; several with {os.pathsep} between" if multiple else ""
    if runtime.widgets_usable:
        received, typed = ask_for_files(multiple=multiple)
        return received or _read(typed, "the path typed in")
    if runtime.answers_requests or runtime.front_end == "terminal":
        try:
            return _read(input(f"Path of the file to take (empty for none{several}): "), "the path typed in")
        except EOFError:
            return []
    raise NotUploadedError(
        "File has not been uploaded: nobody is there to choose one",
        fix=f"set {VARIABLE} to the file's path before the notebook starts{several}",
    )


def _read(paths: str, source: str) -> list[tuple[str, bytes]]:
    received = []
    for path in paths.split(os.pathsep):
        path = os.path.expanduser(path.strip())
        if not path:
            continue
        if not os.path.isfile(path):
            raise NoSuchFileError(
                f"Cannot find file: {path}", where=source, fix="correct the path; it must name a file"
            )
        with open(path, "rb") as file:
            received.append((os.path.basename(path), file.read()))
    return received


def _save(name: str, content: bytes, folder) -> tuple[str, bytes]:
    stem, extension = os.path.splitext(os.path.join(folder, name))
    path, number = stem + extension, 0
    while os.path.lexists(path):
        number += 1
        path = f"{stem} ({number}){extension}"
    print(f"Saving {name} to {path}")
    with open(path, "xb") as file:  # never over a file that somebody made this moment
        file.write(content)
    return path, content
