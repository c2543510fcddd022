"""FastDiarizationModel: who speaks in each 20 ms frame of a window, and an embedding of each local speaker.

Axes: B batch, T audio sample at 16 kHz, F frame of 20 ms, G frame of 40 ms (core), M mel band, D hidden,
S local speaker, C powerset class, E embedding.

The network (for encoder_type="lightweight-cnn"):
    wave_BT -> log-mel at 100 Hz -> two strided convolutions (50 Hz, then 25 Hz) -> residual depthwise blocks
    -> bidirectional GRU or LSTM -> self-attention -> up to 50 Hz, with the 50 Hz features of the stem added
    -> powerset logits_BFC; frame embeddings_BFE come from the residual blocks, before voices are compared
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from colabkit.core.errors import UsageError
from colabkit.pipelines.diarization import FRAME_SAMPLES, RATE_HZ
from colabkit.pipelines.diarization.model.powerset import Powerset

ENCODER_TYPES = ("lightweight-cnn", "hubert", "wavlm", "wav2vec2")
# oneDNN computes an LSTM whole on a CPU, and no GRU: six times as fast there
RECURRENT = {"gru": nn.GRU, "lstm": nn.LSTM}


class LogMel(nn.Module):
    """Log mel energies, always in float32.

    Shapes: wave (B, T) -> (B, M, 2 * ceil(T / 320)). Window 25 ms (Hann), hop 10 ms, natural log; the mean over
    the window of every band is removed, which takes away gain and the colour of the channel.
    """

    def __init__(self, num_mels: int = 64, window: int = 400, hop: int = 160, num_fft: int = 512):
        super().__init__()
        self.window, self.hop, self.num_fft = window, hop, num_fft
        frequency = torch.arange(num_fft // 2 + 1) * (RATE_HZ / num_fft)
        self.register_buffer("hann", torch.hann_window(window, periodic=True), persistent=False)
        self.register_buffer("mel", mel_filters(num_mels, frequency), persistent=False)
        angle = 2 * math.pi / num_fft * torch.arange(num_fft // 2 + 1)[:, None] * torch.arange(window)
        self.register_buffer(
            "basis", torch.cat([angle.cos() * self.hann, angle.sin() * self.hann])[:, None], persistent=False
        )

    def forward(self, wave_BT: torch.Tensor) -> torch.Tensor:
        # Whole 20 ms frames only; half of the window's surplus on either side keeps frames centred.
        surplus, missing = self.window - self.hop, -wave_BT.shape[-1] % FRAME_SAMPLES
        with torch.autocast(wave_BT.device.type, enabled=False):
            padded_BT = F.pad(wave_BT.float(), (surplus // 2, surplus - surplus // 2 + missing))
            power_BKF = self._fast_power(padded_BT) if self.training else self._convolved_power(padded_BT)
            log_mel = (self.mel @ power_BKF).clamp_min(1e-7).log()
            return (log_mel - log_mel.mean(-1, keepdim=True)) * 0.25  # about unit variance

    def _fast_power(self, wave_BT: torch.Tensor) -> torch.Tensor:
        spectrum = torch.fft.rfft(wave_BT.unfold(-1, self.window, self.hop) * self.hann, self.num_fft)
        parts = torch.view_as_real(spectrum)
        squares = parts * parts  # contiguous: a fifth faster than the real and the imaginary parts apart
        return (squares[..., 0] + squares[..., 1]).transpose(1, 2)

    def _convolved_power(self, wave_BT: torch.Tensor) -> torch.Tensor:
        """The same as a convolution: what ONNX can hold at any batch and length, to the last bits of quiet bands."""
        cosine, sine = F.conv1d(wave_BT[:, None], self.basis, stride=self.hop).chunk(2, dim=1)
        return cosine.square() + sine.square()


def mel_filters(
    num_mels: int, frequency_hz: torch.Tensor, low_hz: float = 40.0, high_hz: float = 7_600.0
) -> torch.Tensor:
    """Return triangular filters (M, bin) on the HTK mel scale."""
    low, high = (2595 * math.log10(1 + f / 700) for f in (low_hz, high_hz))
    edges = 700 * (10 ** (torch.linspace(low, high, num_mels + 2) / 2595) - 1)
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising = (frequency_hz[None] - left) / (centre - left)
    falling = (right - frequency_hz[None]) / (right - centre)
    return torch.minimum(rising, falling).clamp_min(0.0)


class ResidualBlock(nn.Module):
    """Depthwise convolution over time, then a pointwise feed-forward, around a residual."""

    def __init__(self, hidden_size: int, dilation: int, dropout: float, kernel: int = 7, growth: int = 2):
        super().__init__()
        self.mix = nn.Conv1d(
            hidden_size,
            hidden_size,
            kernel,
            padding=dilation * (kernel // 2),
            dilation=dilation,
            groups=hidden_size,
            bias=False,
        )
        self.norm = nn.BatchNorm1d(hidden_size)
        self.grow = nn.Conv1d(hidden_size, growth * hidden_size, 1)
        self.shrink = nn.Conv1d(growth * hidden_size, hidden_size, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, feats_BDG: torch.Tensor) -> torch.Tensor:
        inner = self.shrink(F.relu(self.grow(self.norm(self.mix(feats_BDG)))))
        return feats_BDG + self.dropout(inner)


class LightweightCnnEncoder(nn.Module):
    """Log-mel and depthwise-separable convolutions. Shapes: (B, T) -> core (B, D, G), fine (B, D, F)."""

    def __init__(self, hidden_size: int, num_blocks: int, dropout: float, in_channels: int):
        super().__init__()
        self.log_mel = LogMel(in_channels)
        self.stem_fine = nn.Sequential(
            nn.Conv1d(in_channels, hidden_size, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm1d(hidden_size),
            nn.ReLU(),
        )
        self.stem_core = nn.Sequential(
            nn.Conv1d(hidden_size, hidden_size, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm1d(hidden_size),
            nn.ReLU(),
        )
        self.blocks = nn.Sequential(*(ResidualBlock(hidden_size, 2 ** (i % 3), dropout) for i in range(num_blocks)))

    def forward(self, wave_BT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        fine_BDF = self.stem_fine(self.log_mel(wave_BT))
        return self.blocks(self.stem_core(fine_BDF)), fine_BDF


class AttentionBlock(nn.Module):
    """Pre-norm self-attention and feed-forward. Shapes: (B, G, D) -> (B, G, D)."""

    def __init__(self, hidden_size: int, num_heads: int, dropout: float, growth: int = 2):
        super().__init__()
        self.num_heads = num_heads
        self.norm_attention, self.norm_feed = nn.LayerNorm(hidden_size), nn.LayerNorm(hidden_size)
        self.query_key_value = nn.Linear(hidden_size, 3 * hidden_size)
        self.project = nn.Linear(hidden_size, hidden_size)
        self.feed = nn.Sequential(
            nn.Linear(hidden_size, growth * hidden_size), nn.GELU(), nn.Linear(growth * hidden_size, hidden_size)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, feats_BGD: torch.Tensor) -> torch.Tensor:
        qkv = self.query_key_value(self.norm_attention(feats_BGD))
        query, key, value = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in qkv.chunk(3, -1))
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        feats_BGD = feats_BGD + self.dropout(self.project(attended))
        return feats_BGD + self.dropout(self.feed(self.norm_feed(feats_BGD)))


class FastDiarizationModel(nn.Module):
    """Diarize a window of up to about a minute: powerset logits a frame, embeddings to link windows.

    `num_speakers` is the number of local speakers a window can tell apart; a recording may have any number.
    `recurrent` is the layer that reads a window in both directions: gru or lstm.
    head="clip" makes a classifier of whole clips of it, (B, num_speakers) logits, as an earlier public model of this
    name was: it tells known speakers apart, it cannot say who speaks when, and no step of the pipeline uses it.
    Raises: UsageError for an unknown encoder_type or impossible sizes.
    Example:
        >>> model = FastDiarizationModel(num_speakers=2, hidden_size=64, encoder_type="lightweight-cnn")
        >>> logits, embeddings = model(torch.zeros(1, 16_000))
        >>> tuple(logits.shape), tuple(embeddings.shape)
        ((1, 50, 4), (1, 50, 128))
    """

    def __init__(
        self,
        num_speakers: int = 2,
        hidden_size: int = 256,
        encoder_type: str = "lightweight-cnn",
        *,
        max_overlap: int = 2,
        num_blocks: int = 4,
        num_attention_layers: int = 2,
        num_heads: int = 4,
        embedding_size: int = 128,
        dropout: float = 0.1,
        in_channels: int = 64,
        encoder_name: str = "",
        freeze_encoder: bool = False,
        head: str = "frame",
        recurrent: str = "gru",
    ):
        super().__init__()
        if head not in ("frame", "clip"):
            raise UsageError(
                "Cannot build the model", got=head, expected="frame or clip", where="head", fix="head='frame'"
            )
        check_sizes(num_speakers, hidden_size, encoder_type, num_heads)
        if recurrent not in RECURRENT:
            raise UsageError(
                "Cannot build the model",
                got=recurrent,
                expected="one of " + ", ".join(RECURRENT),
                where="model.recurrent",
                fix="--set model.recurrent=gru",
            )
        self.powerset = Powerset(num_speakers, max_overlap)
        if encoder_type == "lightweight-cnn":
            self.encoder = LightweightCnnEncoder(hidden_size, num_blocks, dropout, in_channels)
        else:
            from colabkit.pipelines.diarization.model.pretrained import PretrainedEncoder

            self.encoder = PretrainedEncoder(encoder_type, encoder_name, hidden_size, freeze=freeze_encoder)
        self.recurrent = RECURRENT[recurrent](hidden_size, hidden_size // 2, batch_first=True, bidirectional=True)
        self.attention = nn.ModuleList(
            AttentionBlock(hidden_size, num_heads, dropout) for _ in range(num_attention_layers)
        )
        self.norm = nn.LayerNorm(hidden_size)
        self.up = nn.ConvTranspose1d(hidden_size, hidden_size, 4, stride=2, padding=1)
        self.fine = nn.Conv1d(hidden_size, hidden_size, 1)
        self.head = head
        self.classify = nn.Linear(hidden_size, self.powerset.num_classes if head == "frame" else num_speakers)
        self.embed = nn.Sequential(
            nn.Conv1d(hidden_size, 2 * hidden_size, 1), nn.ReLU(), nn.Conv1d(2 * hidden_size, embedding_size, 1)
        )

    def forward(self, wave_BT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | torch.Tensor:
        core_BDG, fine_BDF = self.encoder(wave_BT)
        # Who a voice is shows in the features before the layers that compare voices within the window.
        embeddings_BEF = self.embed(core_BDG)[..., None].expand(-1, -1, -1, 2).flatten(2)[..., : fine_BDF.shape[-1]]
        core_BGD = core_BDG.transpose(1, 2)
        core_BGD = core_BGD + self.recurrent(core_BGD)[0]
        for layer in self.attention:
            core_BGD = layer(core_BGD)
        core_BDG = self.norm(core_BGD).transpose(1, 2)
        fine_BDF = F.relu(self.up(core_BDG)[..., : fine_BDF.shape[-1]] + self.fine(fine_BDF))
        fine_BFD = fine_BDF.transpose(1, 2)
        if self.head == "clip":
            return self.classify(fine_BFD.mean(1))
        return self.classify(fine_BFD), embeddings_BEF.transpose(1, 2)

    def count_parameters(self) -> int:
        return sum(p.numel() for p in self.parameters())

    def count_trainable_parameters(self) -> int:
        return sum(p.numel() for p in self.parameters() if p.requires_grad)


def speaker_embeddings(embeddings_BFE: torch.Tensor, activity_BFS: torch.Tensor) -> torch.Tensor:
    """Average the frame embeddings over the frames where a speaker talks alone.

    Shapes: (B, F, E), activities in [0, 1] (B, F, S) -> unit vectors (B, S, E).
    """
    alone_BFS = activity_BFS * (activity_BFS.sum(-1, keepdim=True) < 1.5)
    summed_BSE = alone_BFS.transpose(1, 2) @ embeddings_BFE
    return F.normalize(summed_BSE / (alone_BFS.sum(1)[..., None] + 1e-3), dim=-1)


def check_sizes(num_speakers: int, hidden_size: int, encoder_type: str, num_heads: int) -> None:
    """Refuse sizes the network cannot be built with."""
    if encoder_type not in ENCODER_TYPES:
        raise UsageError(
            "Cannot build the model",
            got=encoder_type,
            expected="one of " + ", ".join(ENCODER_TYPES),
            where="model.encoder_type",
            fix="--set model.encoder_type=lightweight-cnn",
        )
    if not 1 <= num_speakers <= 5:
        raise UsageError(
            "Cannot build the model",
            got=num_speakers,
            expected="1 to 5 speakers in one window",
            where="model.num_speakers",
            fix="--set model.num_speakers=3; recordings may still hold more",
        )
    if hidden_size % (2 * num_heads):
        raise UsageError(
            "Cannot build the model",
            got=hidden_size,
            expected=f"a multiple of {2 * num_heads}",
            where="model.hidden_size",
            fix=f"--set model.hidden_size={2 * num_heads * 16}",
        )
