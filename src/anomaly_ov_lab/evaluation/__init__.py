"""Measuring: image and pixel metrics, running a detector over a data set, reports. Loads no torch."""
