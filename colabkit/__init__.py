"""colabkit: speech notebooks that continue where they stood.

Public names are loaded when they are used: importing colabkit imports neither torch nor google.colab.
"""

from importlib import import_module

__version__ = "0.1.0"

_PLACES = {
    "configure": "colabkit.launch",
    "start": "colabkit.launch",
    "machine_table": "colabkit.launch",
    "show": "colabkit.launch",
    "ColabkitError": "colabkit.core.errors",
    "Table": "colabkit.core.table",
    "create_optimal_config": "colabkit.pipelines.asr.configure.manager",
    "ASRConfigManager": "colabkit.pipelines.asr.configure.manager",
    "AdaptiveMemoryCallback": "colabkit.pipelines.asr.train.memory_callback",
    "Transcriber": "colabkit.pipelines.asr.transcribe",
    "Diarizer": "colabkit.pipelines.diarization.infer",
    "FastDiarizationModel": "colabkit.pipelines.diarization.model.network",
}
__all__ = ["__version__", *_PLACES]


def __getattr__(name: str):
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'colabkit' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__():
    return __all__
