"""Published zero-shot methods and remote models, behind the same ``records.Detector`` as ours.

Each is written from its paper (named at the top of its file), runs on any CLIP folder that transformers reads, and is
measured by the same code. ``load.load_baseline`` makes one from a specification such as ``winclip:FOLDER``.
"""
