"""Training: stages 1 and 2, ablations, fusion with a context; one loop, one checkpoint format, one tracker."""
