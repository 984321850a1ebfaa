"""Parts used by two or more methods: attention, recurrent cells, base captioners, beam search. Torch only.

Legend of the dimension letters that tensors carry as suffix:
B captions, C clips, T frames, W words, D features, H hidden, A attention, E embedding, V vocabulary, K beams.
"""
