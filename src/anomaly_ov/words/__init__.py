"""Words about a finding that are taken from its record alone, so that they cannot contradict it; no model, no torch.

``from_record`` answers, ``question`` says what a question is about, ``beyond`` what it asks that no record holds,
``sentences`` puts the record into words, ``agreement`` says where the words of others contradict it.
"""
