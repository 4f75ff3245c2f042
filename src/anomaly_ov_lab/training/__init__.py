"""Training: stages 1 and 2, ablations, leave-one-set-out, the fit of the scoring; one loop, one checkpoint format."""
