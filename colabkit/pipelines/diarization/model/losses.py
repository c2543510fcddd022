"""Losses of the network: powerset cross entropy under the best naming, and speakers told apart.

Axes: B batch, F frame, S local speaker, E embedding, N training speaker.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from colabkit.pipelines.diarization.model.network import speaker_embeddings
from colabkit.pipelines.diarization.model.powerset import Powerset

SCALE, MARGIN = 20.0, 0.1  # additive-margin softmax, Wang et al. 2018
SHORTEST_SOLO_FRAMES = 25  # half a second alone, or the embedding means nothing


class DiarizationLoss(nn.Module):
    """Holds a direction for every training speaker, used in training only.

    The loss is a sum divided by counts the caller gives, so that the parts of a batch add up to the whole.
    """

    def __init__(self, powerset: Powerset, num_training_speakers: int, embedding_size: int, embedding_weight: float):
        super().__init__()
        self.powerset, self.embedding_weight = powerset, embedding_weight
        self.directions_NE = nn.Parameter(torch.randn(num_training_speakers, embedding_size) * 0.1)

    def counts(self, batch: Any) -> torch.Tensor:
        """Return (scored frames, speakers with an embedding to learn) of a batch, float (2,)."""
        return torch.stack([batch.scored.sum(), self._learnable_BS(batch).sum()]).float()

    def forward(
        self, logits_BFC: torch.Tensor, embeddings_BFE: torch.Tensor, batch: Any, counts: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """Return the loss of these windows as their share of a batch with `counts`; frame and speaker loss."""
        frame_loss = self.frame_loss(logits_BFC, batch, counts)
        learnable_BS = self._learnable_BS(batch)
        voices = speaker_embeddings(embeddings_BFE.float(), batch.active.float())[learnable_BS]
        speaker_loss = self.speaker_loss(voices, batch.speaker_ids[learnable_BS], counts)
        loss = frame_loss + self.embedding_weight * speaker_loss
        return loss, (frame_loss.detach(), speaker_loss.detach())

    def frame_loss(self, logits_BFC: torch.Tensor, batch: Any, counts: torch.Tensor) -> torch.Tensor:
        """Return the cross entropy of the frames under the best naming, over the number of scored frames."""
        classes_BF = self.powerset.to_classes(batch.active)
        loss = self.powerset.best_permutation_loss(logits_BFC.float(), classes_BF, batch.scored.float())[0].sum()
        return loss / counts[0].clamp_min(1)

    def speaker_loss(self, voices: torch.Tensor, target: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """Return the additive-margin softmax of these embeddings (voice, E), over the number of speakers to learn."""
        cosine = voices @ F.normalize(self.directions_NE, dim=-1).T
        penalised = SCALE * (cosine - MARGIN * F.one_hot(target, cosine.shape[1]))
        return F.cross_entropy(penalised, target, reduction="sum") / counts[1].clamp_min(1)

    def _learnable_BS(self, batch: Any) -> torch.Tensor:
        alone_BFS = batch.active & (batch.active.sum(-1, keepdim=True) == 1)
        return (batch.speaker_ids >= 0) & (alone_BFS.sum(1) >= SHORTEST_SOLO_FRAMES)
