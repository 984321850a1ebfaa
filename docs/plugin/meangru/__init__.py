"""Mean-GRU: a GRU that reads the mean frame beside every word."""

import torch
from torch import nn

from bench.nn.decoding import WordEmbedding
from bench.nn.layers import FeatureNorm, masked_mean
from bench.training import CaptionModel, cross_entropy_phase


class MeanGRU(nn.Module):
    def __init__(self, words, frame_width, width, embedding, dropout):
        super().__init__()
        self.norm = FeatureNorm(frame_width)  # measured on the training clips before the first batch
        self.embedding = WordEmbedding(words, embedding)
        self.cell = nn.GRUCell(embedding + frame_width, width)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, words)

    def encode(self, batch):  # what a clip lends to its words, once for each clip
        frames, mask = batch.streams["frames"], batch.masks["frames"]  # [C, T, D], [C, T]
        return {"clip": masked_mean(self.norm(frames, mask), mask)}

    def start(self, memory):  # the state before the first word
        return (memory["clip"].new_zeros(len(memory["clip"]), self.cell.hidden_size),)

    def step(self, words, state, memory):  # one word further: features, state, attention (none here)
        seen = torch.cat([self.dropout(self.embedding(words)), memory["clip"]], dim=-1)
        hidden = self.cell(seen, state[0])
        return hidden, (hidden,), None

    def logits(self, features):  # scores of the next word
        return self.output(self.dropout(features))


def build(settings, streams, vocabulary):
    captioner = MeanGRU(len(vocabulary), streams["frames"].shape[-1], **settings)
    return CaptionModel(captioner, vocabulary, lambda clips, run: [cross_entropy_phase(captioner, run)])
