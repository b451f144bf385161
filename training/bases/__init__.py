"""Base models: what the refinement loop, the exporter and the runtime need from one.

A base model is an `nn.Module` that maps features [S, D] to class logits [S, N] and attention logits [S, 2] or [S, 1];
`activations` turns them into C̄, Ā and ŷ.
"""
