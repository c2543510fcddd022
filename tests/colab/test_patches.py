"""google.colab.patches: show an image of OpenCV in the notebook, where its own windows do not exist."""

from __future__ import annotations

import pytest


def test_images_of_opencv_are_shown_in_their_colours(monkeypatch):
    numpy, _ = pytest.importorskip("numpy"), pytest.importorskip("PIL")
    import IPython.display

    from colabkit.colab.patches import cv2_imshow

    shown = []
    monkeypatch.setattr(IPython.display, "display", shown.append)
    blue, grey = numpy.zeros((2, 3, 3)), numpy.full((2, 3, 1), 300.0)
    blue[..., 0] = 255
    cv2_imshow(blue)
    cv2_imshow(numpy.dstack([blue, numpy.full((2, 3), 9)]))
    cv2_imshow(grey)
    cv2_imshow(grey[..., 0])
    assert [image.size for image in shown] == [(3, 2)] * 4
    assert [image.getpixel((0, 0)) for image in shown] == [(0, 0, 255), (0, 0, 255, 9), 255, 255]
