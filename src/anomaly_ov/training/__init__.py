"""Training: distilling a compact encoder, and stage 1 of the expert; one loop, one checkpoint format, one tracker."""
