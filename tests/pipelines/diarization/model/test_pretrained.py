"""HuBERT, WavLM and wav2vec 2.0 as encoders: frames, freezing, faulty folders, a torchaudio that does not import."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from colabkit.core.errors import DataError
from colabkit.pipelines.diarization.model.export import check_parity, export_int8, export_onnx
from colabkit.pipelines.diarization.model.network import LightweightCnnEncoder
from colabkit.pipelines.diarization.model.pretrained import CLASS_NAMES, PretrainedEncoder

REPOSITORY = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder as save_pretrained makes it, of a small HuBERT."""
    folder = tmp_path_factory.mktemp("saved")
    torch.manual_seed(0)
    PretrainedEncoder("hubert", "", 16, freeze=False).backbone.save_pretrained(folder)
    return folder


@pytest.fixture
def broken(saved, tmp_path):
    """A copy of the folder, to be broken."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.mark.parametrize("kind", CLASS_NAMES)
def test_shapes_are_those_of_the_lightweight_encoder_at_every_length(kind):
    light, pretrained = (
        LightweightCnnEncoder(16, 1, 0.0, 64).eval(),
        PretrainedEncoder(kind, "", 16, freeze=False).eval(),
    )
    with torch.no_grad():
        for num_samples in (1, 2, 80, 319, 320, 321, 399, 400, 401, 639, 640, 641, 959, 961, 8_001, 16_000, 31_999):
            wave = torch.randn(2, num_samples)
            assert [x.shape for x in pretrained(wave)] == [x.shape for x in light(wave)], num_samples


def test_frames_lie_where_the_sound_is():
    encoder = PretrainedEncoder("wav2vec2", "", 16, freeze=False).eval()
    reach = encoder.backbone.feature_extractor
    wave = torch.zeros(1, 32_000)
    wave[0, 16_000:16_320] = 1.0  # frame 50
    with torch.no_grad():
        feats = reach(torch.nn.functional.pad(wave, (40, 40)))[0]
    change = (feats - feats[:, :1]).abs().sum(0)
    assert feats.shape[1] == 100 and abs(int(change.argmax()) - 50) <= 1


@pytest.mark.parametrize("kind", CLASS_NAMES)
def test_one_step_trains_the_encoder_and_a_frozen_one_stays_as_it_came(make_model, kind):
    for freeze in (False, True):
        model = make_model(2, kind, freeze_encoder=freeze).train()
        assert model.encoder.backbone.training is not freeze and model.encoder.training
        before = {name: p.clone() for name, p in model.named_parameters()}
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
        logits, embeddings = model(0.1 * torch.randn(2, 8_000))
        (logits[..., 0].mean() + embeddings.square().mean()).backward()
        optimizer.step()
        moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
        inside = {name for name in before if ".backbone." in name}
        assert "encoder.layer_weights_L" in moved and "encoder.to_fine.weight" in moved
        assert (not moved & inside) if freeze else len(moved & inside) > 0.8 * len(inside)
        assert model.count_trainable_parameters() < model.count_parameters() or not freeze


def test_a_frozen_encoder_draws_no_dropout_and_keeps_no_activations(make_model):
    model = make_model(2, "hubert", freeze_encoder=True, dropout=0.0).train()
    wave = torch.randn(1, 8_000)
    torch.testing.assert_close(model(wave)[0], model(wave)[0])
    assert not model.encoder.backbone(wave).last_hidden_state.requires_grad


@pytest.mark.parametrize("kind", CLASS_NAMES)
def test_onnx_computes_the_same_at_any_length_and_batch(make_model, tmp_path, kind):
    import numpy as np
    import onnxruntime

    model = make_model(2, kind).eval()
    export_onnx(model, tmp_path / "model.onnx", opset=17)
    rng = np.random.default_rng(0)
    waves = [0.1 * rng.standard_normal(n).astype(np.float32) for n in (3_200, 80_001, 200_000)]
    difference, same = check_parity(model, tmp_path / "model.onnx", waves)
    assert difference <= 1e-4 and same == 1.0
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    batch = 0.1 * rng.standard_normal((5, 20_000)).astype(np.float32)
    together, alone = (session.run(None, {"wave": w})[0] for w in (batch, batch[3:4]))
    np.testing.assert_allclose(together[3:4], alone, atol=1e-4)
    export_int8(tmp_path / "model.onnx", tmp_path / "small.onnx")
    assert check_parity(model, tmp_path / "small.onnx", waves)[1] > 0.8


def test_a_folder_is_loaded_as_it_was_saved_in_whole_precision(saved, tmp_path):
    encoder = PretrainedEncoder("hubert", str(saved), 16, freeze=False)
    stored = load_file(saved / "model.safetensors")
    state = encoder.backbone.state_dict()
    name = "encoder.layers.1.attention.q_proj.weight"
    assert torch.equal(state[name], stored[name]) and state[name].dtype == torch.float32
    save_file({k: v.half() for k, v in stored.items()}, tmp_path / "model.safetensors", {"format": "pt"})
    shutil.copy(saved / "config.json", tmp_path)
    assert (
        PretrainedEncoder("hubert", str(tmp_path), 16, freeze=True).backbone.state_dict()[name].dtype == torch.float32
    )


@pytest.mark.parametrize("says, expected", [(True, True), (False, False), (None, False)])
def test_waves_are_normalised_where_the_model_was_trained_on_such(broken, says, expected):
    if says is not None:
        (broken / "preprocessor_config.json").write_text(
            json.dumps(
                {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": says, "sampling_rate": 16_000}
            )
        )
    encoder = PretrainedEncoder("hubert", str(broken), 16, freeze=False).eval()
    assert encoder.normalises is expected
    seen = []
    encoder.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    wave = 0.1 * torch.randn(1, 8_000) + 0.02
    encoder(wave)
    inside = seen[0][0, 40:8_040]
    assert (inside.std() == pytest.approx(1.0, rel=1e-3)) if expected else torch.equal(inside, wave[0])
    assert not expected or abs(inside.mean()) < 1e-3


def set_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def cut_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1_000])


def drop_tensor(folder):
    state = load_file(folder / "model.safetensors")
    del state["encoder.layers.0.attention.k_proj.weight"]
    save_file(state, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    "breaks, says",
    [
        (lambda f: (f / "model.safetensors").unlink(), "cannot be had"),
        (lambda f: (f / "config.json").unlink(), "cannot be had"),
        (lambda f: (f / "config.json").write_text("{"), "cannot be had"),
        (cut_weights, "cannot be had"),
        (drop_tensor, "not whole"),
        (lambda f: set_config(f, hidden_size=32), "cannot be had"),
        (lambda f: set_config(f, conv_stride=[5, 2, 2, 2, 2, 2, 1]), "every 160 samples"),
        (lambda f: set_config(f, model_type="wavlm"), "another kind"),
        (lambda f: set_config(f, model_type="bert"), "another kind"),
        (lambda f: set_config(f, model_type="of_the_future"), "cannot be had"),
    ],
)
def test_a_faulty_folder_is_refused_with_one_clear_error(broken, breaks, says):
    breaks(broken)
    with pytest.raises(DataError) as caught:
        PretrainedEncoder("hubert", str(broken), 16, freeze=False)
    assert says in str(caught.value) and str(broken) in str(caught.value) and caught.value.fix


@pytest.mark.parametrize(
    "answer, fix",
    [
        ("You are trying to access a gated repo.\nMake sure to have access to it", "HF_TOKEN"),
        ("We couldn't connect to 'https://huggingface.co' to load the files", "connect to the Internet"),
    ],
)
def test_what_the_hub_refuses_says_how_to_mend_it(monkeypatch, answer, fix):
    from transformers import AutoConfig

    def refuse(*args, **how):
        raise OSError(answer)

    monkeypatch.setattr(AutoConfig, "from_pretrained", refuse)
    with pytest.raises(DataError) as caught:
        PretrainedEncoder("wavlm", "somebody/secret-401", 16, freeze=False)
    assert fix in caught.value.fix and answer.splitlines()[0] in str(caught.value)


def python_with(folder: Path, code: str) -> str:
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{REPOSITORY}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2_000:]
    return done.stdout


LOAD = (
    "from colabkit.pipelines.diarization.model.pretrained import PretrainedEncoder as P; "
    "P('{}', '', 16, freeze=False)\n"
)


@pytest.mark.parametrize("fault", ["OSError('libtorchaudio.so: undefined symbol')", "ImportError('no _torchaudio')"])
def test_a_torchaudio_that_does_not_import_takes_no_model_with_it(tmp_path, fault):
    package = tmp_path / "torchaudio"
    package.mkdir()
    (package / "__init__.py").write_text(f"raise {fault}\n")
    metadata = tmp_path / "torchaudio-2.9.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: torchaudio\nVersion: 2.9.0\n")
    # Without this the test would show nothing: transformers alone falls over it, even when asked before.
    tried = python_with(
        tmp_path,
        "import transformers\ntransformers.utils.is_torchaudio_available()\n"
        "try:\n    from transformers import HubertModel\n    print('alone: fine')\n"
        "except Exception as error:\n    print('alone:', type(error).__name__)\n"
        + LOAD.format("hubert")
        + LOAD.format("wavlm")
        + "print('loaded')\n"
        "import sys\nprint('torchaudio' in sys.modules)\n"
        "try:\n    import torchaudio\nexcept Exception as error:\n    print('still:', error)\n",
    )
    assert "loaded\nFalse\nstill: " in tried
    assert "alone: fine" not in tried


def test_a_whole_torchaudio_is_left_alone(tmp_path):
    package = tmp_path / "torchaudio"
    package.mkdir()
    (package / "__init__.py").write_text("__version__ = '2.9.0'\n")
    tried = python_with(
        tmp_path,
        LOAD.format("wav2vec2") + "import sys, transformers\n"
        "print(sys.modules['torchaudio'].__version__, transformers.utils.is_torchaudio_available())",
    )
    assert tried.split() == ["2.9.0", "True"]


def test_without_torchaudio_the_models_load():
    code = "import sys\nsys.modules['torchaudio'] = None\n" + LOAD.format("hubert") + "print('loaded')"
    assert "loaded" in python_with(REPOSITORY, code)
