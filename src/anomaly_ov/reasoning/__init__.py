"""Anomaly-OV as a whole: what the expert found, put before a LLaVA-OneVision language model.

``evidence`` (what the detector says of a picture) -> ``layout`` (which token stands where) -> ``fusion`` (the
embeddings that the language model reads) -> ``model`` (the language model). ``processor`` turns conversations into ids
and counts the places, ``folder`` loads and saves.
"""
