"""Names of codecs, where their models are, and whether the installed transformers knows them; nothing is imported."""

from __future__ import annotations

from colabkit.core.errors import StateError
from colabkit.core.runtime import detect
from colabkit.core.versions.differences import installed_version, too_old_for_codec

HUB_IDS = {
    "neucodec": "neuphonic/neucodec",
    "xcodec2": "HKUSTAudio/xcodec2-hf",
    "mimi": "kyutai/mimi",
    "encodec": "facebook/encodec_24khz",
    "dac": "descript/dac_24khz",
    "dac-16khz": "descript/dac_16khz",
    "dac-24khz": "descript/dac_24khz",
    "dac-44khz": "descript/dac_44khz",
}
FITTED = "kmeans-mel"


def kind_of(name: str) -> str:
    """Return the kind of a codec that goes by a known name or Hub id, "" for another one."""
    hub_id = name.partition("@")[0]
    return next((short.partition("-")[0] for short, known in HUB_IDS.items() if hub_id in (short, known)), "")


def lacking(kind: str) -> StateError | None:
    """Return the error of a transformers older than a kind of codec; None where it is new enough, or not installed."""
    since = too_old_for_codec(kind)
    if not since:
        return None
    on_colab = detect().on_colab_vm
    other = (
        "Colab's own packages were made for the transformers that it brings: leave that as it is"
        if on_colab
        else f'or pip install -U "transformers>={since}", and restart the kernel'
    )
    return StateError(
        f"The installed transformers does not know {kind}",
        got=installed_version("transformers"),
        expected=f"{since} or newer",
        where="codec.name",
        fix=f'take Mimi, --set codec.name=mimi (in the notebook: CODEC = "mimi"), which this one knows; {other}',
    )
