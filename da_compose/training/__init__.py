"""Labelled sources or tasks become a trained network: steps, batches, augmentation, resuming."""
