"""What makes and measures models: data sets, synthetic defects, conversations, training, evaluation and rival methods.

Nothing in ``anomaly_ov`` needs it. Most of it needs the extra ``lab``; reading data sets and drawing defects do not.
"""

# Verb of the command line -> "module:attribute", in the order of the help page.
VERBS = {
    "synthesise": "anomaly_ov_lab.cli.synthesise:app",
    "data": "anomaly_ov_lab.cli.data:app",
    "train": "anomaly_ov_lab.cli.train:app",
    "eval": "anomaly_ov_lab.cli.eval:app",
    "compare": "anomaly_ov_lab.cli.compare:app",
    "baselines": "anomaly_ov_lab.cli.baselines:app",
}
