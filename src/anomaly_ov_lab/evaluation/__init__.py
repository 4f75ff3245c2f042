"""Measuring: image and pixel metrics, detectors run over data sets, reports. Only ``many_experts`` loads torch."""
