"""google.colab.runtime: give the machine back."""

from __future__ import annotations

from colabkit.colab.errors import RuntimeManagementError
from colabkit.colab.place import here, real

__all__ = ["unassign"]


def unassign():
    """Give the Colab VM back; RuntimeManagementError elsewhere, where the machine is the user's own and stays up."""
    colab = real("runtime", here())
    if colab is None:
        raise RuntimeManagementError(
            "Unable to find the runtime management service: this machine is not lent by Colab, "
            "there is nothing to give back",
            fix="leave the call out, or stop the kernel with the notebook's Shut Down",
        )
    try:
        colab.unassign()
    except Exception as error:
        if type(error).__name__ != "RuntimeManagementError":
            raise
        raise RuntimeManagementError(str(error), fix="Runtime > Disconnect and delete runtime") from error
