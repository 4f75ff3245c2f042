"""Batches, pictures, findings and decisions in one data folder; ``store.Store`` is the way in."""
