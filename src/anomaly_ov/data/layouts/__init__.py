"""From a folder to a ``DataSet``: the layout is told by its structure, never by the folder's name.

| layout    | what a category folder looks like |
|-----------|-----------------------------------|
| `mvtec`   | `test/good`, `test/<defect>`, optional `ground_truth/<defect>/<stem>_mask.png`, `train/good`, `validation/good` |
| `mvtec3d` | `test/<defect>/rgb` with masks of the same names in `test/<defect>/gt`, `train/good/rgb`, `validation/good/rgb` (MVTec 3D-AD as released; depth is not read) |
| `elpv`    | `labels.csv` with lines "image probability type" split by blanks (the ELPV release) |
| `folders` | one folder of normal and one of anomalous pictures (`good ok normal no` / `bad defect abnormal anomaly ng yes` ...), optional `masks` with a mask per anomalous picture |
| `jsonl`   | a file with one object a line: image, and optionally label, mask, category, defect, split, probability |

The root is one category or holds several, up to three levels down. What is odd (a missing mask, an unreadable line, a
link that leads outside) becomes a note and is left out; what makes the labels doubtful is a ``DataError``.
"""  # noqa: E501

from __future__ import annotations

from anomaly_ov.data.layouts.discovery import discover, discover_all

__all__ = ["discover", "discover_all"]
