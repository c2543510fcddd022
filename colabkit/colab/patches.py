"""google.colab.patches: show an image of OpenCV in the notebook, where its own windows do not exist."""

from __future__ import annotations

__all__ = ["cv2_imshow", "cv_imshow"]


def cv2_imshow(a):
    """Display an image array, shape (N, M), (N, M, 1), (N, M, 3) as BGR or (N, M, 4) as BGRA."""
    from IPython.display import display
    from PIL import Image

    a = a.clip(0, 255).astype("uint8")
    if a.ndim == 3:
        a = a[..., 0] if a.shape[2] == 1 else a[..., [2, 1, 0, 3][: a.shape[2]]]
    display(Image.fromarray(a))


cv_imshow = cv2_imshow
