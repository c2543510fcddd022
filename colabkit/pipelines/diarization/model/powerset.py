"""Powerset classes: one class for every set of speakers that may talk at once (Plaquet & Bredin, 2023).

Axes: B batch, F frame (20 ms), S local speaker, C powerset class, P permutation of the speakers.
"""

from __future__ import annotations

from itertools import combinations, permutations

import torch
import torch.nn.functional as F
from torch import nn


class Powerset(nn.Module):
    """Translate between speaker activities and powerset classes.

    Classes: silence, then every single speaker, then every pair, ... up to `max_overlap` at once.
    Three speakers and two at once give 7 classes; two and two give 4.
    """

    def __init__(self, num_speakers: int, max_overlap: int = 2):
        super().__init__()
        self.num_speakers = num_speakers
        self.max_overlap = min(max_overlap, num_speakers)
        sets = [s for size in range(self.max_overlap + 1) for s in combinations(range(num_speakers), size)]
        table_CS = torch.zeros(len(sets), num_speakers)
        for index, members in enumerate(sets):
            table_CS[index, list(members)] = 1.0
        index_of = {members: index for index, members in enumerate(sets)}
        orders = list(permutations(range(num_speakers)))
        # moved_PC[p, c]: the class that c becomes when speaker s is renamed orders[p][s].
        moved_PC = torch.tensor(
            [[index_of[tuple(sorted(order[s] for s in members))] for members in sets] for order in orders]
        )
        self.register_buffer("table_CS", table_CS, persistent=False)
        self.register_buffer("moved_PC", moved_PC, persistent=False)
        self.register_buffer("orders_PS", torch.tensor(orders), persistent=False)

    @property
    def num_classes(self) -> int:
        return self.table_CS.shape[0]

    def to_classes(self, active_BFS: torch.Tensor) -> torch.Tensor:
        """Return the class of each frame, (B, F) int64; with too many speakers at once, the first ones count."""
        active_BFS = active_BFS.float()
        rank_BFS = active_BFS.cumsum(-1)
        kept_BFS = active_BFS * (rank_BFS <= self.max_overlap)
        distance_BFC = torch.cdist(kept_BFS, self.table_CS.expand(len(kept_BFS), -1, -1), p=1)
        return distance_BFC.argmin(-1)

    def best_permutation_loss(
        self, logits_BFC: torch.Tensor, classes_BF: torch.Tensor, weight_BF: torch.Tensor, smoothing: float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the cross entropy under each sample's best naming of the speakers, and that naming.

        Shapes: -> summed loss of each sample (B,), order (B, S): output s speaks for target order[b, s]'s inverse,
        that is, target speaker t is output order[b, t].
        Source: permutation-invariant training, Yu et al. 2017; all S! namings are tried.
        """
        log_prob_BFC = F.log_softmax(logits_BFC, -1)
        classes_PBF = self.moved_PC[:, classes_BF]
        picked_BFP = log_prob_BFC.gather(2, classes_PBF.permute(1, 2, 0))
        loss_BP = -(picked_BFP * weight_BF[..., None]).sum(1)
        best_B = loss_BP.argmin(1)
        loss_B = loss_BP.gather(1, best_B[:, None])[:, 0]
        if smoothing:
            uniform_B = -(log_prob_BFC.mean(-1) * weight_BF).sum(1)
            loss_B = (1 - smoothing) * loss_B + smoothing * uniform_B
        return loss_B, self.orders_PS[best_B]
