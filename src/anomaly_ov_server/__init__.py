"""The HTTP service: pictures in, findings out; batches and decisions that survive; a page to work with."""

# Verb of the command line -> "module:attribute".
VERBS = {"serve": "anomaly_ov_server.cli:app"}
