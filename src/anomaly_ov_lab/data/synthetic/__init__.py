"""Synthetic defects: seeded (image, mask, facts) samples drawn from nothing, or on any photo. No torch.

``generate(seed)`` has visible defects, ``normal(seed)`` none; both pass the same camera.
"""

from __future__ import annotations

from anomaly_ov_lab.data.synthetic.defects import KINDS
from anomaly_ov_lab.data.synthetic.facts import DefectFact, Facts
from anomaly_ov_lab.data.synthetic.generator import SyntheticSample, generate, normal

__all__ = ["KINDS", "DefectFact", "Facts", "SyntheticSample", "generate", "normal"]
