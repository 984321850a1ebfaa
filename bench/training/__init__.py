"""The training loop that methods share: phases, budget, exact resume, best weights, caption weights."""

from bench.training.model import CaptionModel
from bench.training.phases import Losses, Phase, fit_phases
from bench.training.recipes import cross_entropy_phase
from bench.training.rewards import caption_weights

__all__ = ["CaptionModel", "Losses", "Phase", "caption_weights", "cross_entropy_phase", "fit_phases"]
