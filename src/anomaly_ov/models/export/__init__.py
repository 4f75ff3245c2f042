"""Detectors written for other runtimes: ONNX graphs beside a model folder's weights. Needs the extra ``lab``."""
