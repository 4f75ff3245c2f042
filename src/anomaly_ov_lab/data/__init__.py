"""Data sets: samples, folder layouts, leakage between sets, synthetic defects. Loads no torch."""
