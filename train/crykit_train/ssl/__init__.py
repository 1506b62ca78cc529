"""Self-supervised pre-training and adaptation of encoders: SimCLR, BYOL-A, Hybrid BYOL-S."""
