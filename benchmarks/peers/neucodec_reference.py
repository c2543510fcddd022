"""Codes of the package neucodec 0.0.6 itself against ours, with the same random weights in both.

    pip download --no-deps neucodec==0.0.6 && unzip neucodec-*.whl -d PEER
    pip install --no-deps --target PEER vector-quantize-pytorch==1.17.8 einx einops local-attention
    pip install --no-deps --target PEER hyper-connections frozendict
    python benchmarks/peers/neucodec_reference.py PEER [--lengths 400,3200,16000]

torchaudio and torchtune, which it imports and does not need to encode tensors, are stood in for where they are not
installed. w2v-BERT gets narrow feed-forward layers, so that it fits a small machine; NeuCodec's own parts have their
published size. Prints the share of codes that are the same (target 100%), and the same for the emulation that the GPU
benchmark times.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.peers.codec_calls import NeuCodecsOwn, speech  # noqa: E402
from colabkit.pipelines.dataset.codecs.families import FAMILIES  # noqa: E402
from colabkit.pipelines.dataset.codecs.transformers_codec import TransformersCodec  # noqa: E402

W2V_BERT = {"hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 256, "output_hidden_size": 1024}


def stand_in(name: str, **members: Any) -> None:
    """Make `import name` succeed where nothing of it is used."""
    if name.partition(".")[0] in sys.modules or importlib.util.find_spec(name.partition(".")[0]) is None:
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(members)


def both() -> tuple[Any, Any]:
    """Return neucodec's model and transformers', not yet with the same weights."""
    stand_in("torchtune")
    stand_in("torchtune.modules", RotaryPositionalEmbeddings=lambda *a, **k: torch.nn.Identity())
    if importlib.util.find_spec("torchaudio") is None:
        sys.modules.update({name: types.ModuleType(name) for name in ("torchaudio", "torchaudio.transforms")})
        sys.modules["torchaudio"].transforms = sys.modules["torchaudio.transforms"]
        sys.modules["torchaudio"].__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
    wide = transformers.Wav2Vec2BertConfig(num_hidden_layers=24, output_hidden_states=True, **W2V_BERT)
    transformers.Wav2Vec2BertModel.from_pretrained = classmethod(lambda cls, name, **more: cls(wide))
    transformers.AutoFeatureExtractor.from_pretrained = classmethod(
        lambda cls, name: transformers.SeamlessM4TFeatureExtractor()
    )
    import neucodec

    narrow = {"model_type": "wav2vec2-bert", "num_hidden_layers": 16, **W2V_BERT}
    config = transformers.NeuCodecConfig(semantic_model_config=narrow)
    return neucodec.NeuCodec(24_000, 480).eval(), transformers.NeuCodecModel(config).eval()


@torch.no_grad()
def share_weights(old: Any, new: Any) -> None:
    """Draw weights and put them into both models."""
    generator = torch.Generator().manual_seed(1)

    def drawn(shape: Any, gain: float = 1.4) -> torch.Tensor:
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 400
        return torch.randn(shape, generator=generator) * (gain / fan_in**0.5)

    def pairs(one: Any, other: Any, kind: str) -> list:
        found = [[m for m in model.modules() if type(m).__name__.endswith(kind)] for model in (one, other)]
        assert len(found[0]) == len(found[1])
        return list(zip(*found, strict=True))

    for theirs, ours in pairs(old.CodecEnc, new.acoustic_encoder, "Conv1d"):
        ours.weight.copy_(drawn(ours.weight.shape))
        ours.bias.copy_(drawn(ours.bias.shape))
        theirs.weight_v.copy_(ours.weight)
        theirs.weight_g.copy_(ours.weight.flatten(1).norm(dim=1)[:, None, None])
        theirs.bias.copy_(ours.bias)
    for theirs, ours in pairs(old.CodecEnc, new.acoustic_encoder, "SnakeBeta"):
        for name in ("alpha", "beta"):
            getattr(ours, name).copy_(drawn(getattr(ours, name).shape, 6.0))
            getattr(theirs, name).copy_(getattr(ours, name))
    for theirs, ours in pairs(old.SemanticEncoder_module, new.semantic_adapter, "Conv1d"):
        ours.weight.copy_(drawn(ours.weight.shape))
        theirs.load_state_dict(ours.state_dict())
    for tensor in new.semantic_encoder.parameters():
        if tensor.dim() > 1:
            tensor.copy_(drawn(tensor.shape, 1.0))
    old.semantic_model.load_state_dict(new.semantic_encoder.state_dict(), strict=False)
    new.fc_encoder.weight.copy_(drawn(new.fc_encoder.weight.shape))
    old.fc_prior.load_state_dict(new.fc_encoder.state_dict())
    new.quantizer.project_in.weight.copy_(drawn(new.quantizer.project_in.weight.shape, 2.0))
    old.generator.quantizer.project_in.load_state_dict(new.quantizer.project_in.state_dict())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", help="folder with the package neucodec and what it needs")
    parser.add_argument("--lengths", default="400,640,3200,7999,8000,16000,19333", help="samples at 16 kHz")
    options = parser.parse_args()
    sys.path.append(options.peer)
    old, new = both()
    share_weights(old, new)
    codec = TransformersCodec("neucodec", new, FAMILIES["neucodec"](new.config, {}), "", device=torch.device("cpu"))
    emulated, total, ours, theirs, used = NeuCodecsOwn(new), 0, 0, 0, set()
    for length in map(int, options.lengths.split(",")):
        wave = speech(length / 16_000, 16_000, length)[:length]
        with torch.no_grad():
            codes = old.encode_code(torch.from_numpy(wave)[None, None])[0].numpy()
        total, used = total + codes.size, used | set(codes.ravel().tolist())
        ours, theirs = (
            ours + (codes == codec.encode_batch([wave])[0]).sum(),
            theirs + (codes == emulated([wave])[0]).sum(),
        )
        print(f"{length} samples: {codes.shape[1]} codes", flush=True)
    print(
        f"{total} codes, {len(used)} of them different; the emulation agrees in {theirs / total:.2%}; "
        f"parity with neucodec 0.0.6: {ours / total:.2%} (target 100%)"
    )
    return 0 if ours == total else 1


if __name__ == "__main__":
    sys.exit(main())
