"""From a folder to a ``DataSet``: the layout is told by its structure, never by the folder's name.

| layout     | what its folder looks like |
|------------|----------------------------|
| `mvtec`    | `test/good`, `test/<defect>`, optional `ground_truth/<defect>/<stem>_mask.png`, `train/good`, `validation/good` (MVTec AD, MPDD); `ok` and `ko` instead (BTAD) |
| `mvtec3d`  | `test/<defect>/rgb` with masks of the same names in `test/<defect>/gt`, `train/good/rgb`, `validation/good/rgb` (MVTec 3D-AD as released; depth is not read) |
| `visa`     | `split_csv/1cls.csv` (VisA as released) |
| `aitex`    | `Defect_images`, `Mask_images`, `NODefect_images/<fabric>` (AITEX strips as released; tiles: ``data.convert``) |
| `elpv`     | `labels.csv` with lines "image probability type" split by blanks (the ELPV release): 0 is normal, 1 anomalous, in between the label is unknown |
| `headct`   | `labels.csv` with lines "id, 0 or 1" and pictures `000.png`, ... in folders below (HeadCT as released) |
| `realiad`  | one JSON file per class with meta, train, test, and `realiad_<side>` folders of pictures (Real-IAD as released) |
| `kolektor` | `kos01/Part0.jpg` with `kos01/Part0_label.bmp` (KolektorSDD), `train/1.png` with `train/1_GT.png` (KolektorSDD2) |
| `mtd`      | `MT_<Defect>/Imgs/<stem>.jpg` with `<stem>.png` (the magnetic tiles as released) |
| `meta`     | `meta.json` as AnomalyCLIP writes it |
| `coco`     | a JSON file with images and annotations; outlines become masks by ``data.convert`` |
| `folders`  | one folder of normal and one of anomalous pictures (`good ok normal no` / `bad defect abnormal anomaly ng ko yes` ...), optional `masks` with a mask per anomalous picture (BrainMRI, Br35H) |
| `jsonl`    | a file with one object a line: image, and optionally label, mask, category, defect, split, probability |

The root is one category or set, or holds several, up to three levels down. What is odd (a missing mask, an unreadable
line, a path that leads outside) becomes a note and is left out; what makes the labels doubtful is a ``DataError``.
"""  # noqa: E501

from __future__ import annotations

from anomaly_ov_lab.data.layouts.discovery import discover, discover_all

__all__ = ["discover", "discover_all"]
