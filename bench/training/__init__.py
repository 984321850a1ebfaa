"""The training loop that methods share: phases, budget, exact resume, best weights, caption weights."""

from bench.training.model import CaptionModel, base_phases, cross_entropy_phase, plain_loss
from bench.training.phases import Group, Losses, Phase, fit_phases
from bench.training.reinforce import (
    BASELINES,
    Baseline,
    CaptionReward,
    Draw,
    caption_weights,
    reinforce_phase,
    self_critical_phase,
)

__all__ = [
    "BASELINES",
    "Baseline",
    "CaptionModel",
    "CaptionReward",
    "Draw",
    "Group",
    "Losses",
    "Phase",
    "base_phases",
    "caption_weights",
    "cross_entropy_phase",
    "fit_phases",
    "plain_loss",
    "reinforce_phase",
    "self_critical_phase",
]
