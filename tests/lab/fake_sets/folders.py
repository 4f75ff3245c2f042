"""Sets told by their folders alone."""

from __future__ import annotations

from pathlib import Path

from fake_sets.pictures import mask, picture

STRIP = (512, 32)
"""AITEX's 4096 x 256 at an eighth."""


def mvtec(root: Path) -> Path:
    for category in ("bottle", "cable"):
        _mvtec_category(root / category, ("broken", "contamination"))
    return root


def mpdd(root: Path) -> Path:
    for category in ("bracket_black", "tubes"):
        _mvtec_category(root / category, ("hole", "scratches"))
    return root


def _mvtec_category(root: Path, kinds: tuple[str, ...]) -> None:
    for name in ("000", "001"):
        picture(root / "train/good" / f"{name}.png")
        picture(root / "test/good" / f"{name}.png")
        for kind in kinds:
            picture(root / "test" / kind / f"{name}.png", defect=True)
            mask(root / "ground_truth" / kind / f"{name}_mask.png")


def mvtec3d(root: Path) -> Path:
    for part, kind in (("train", "good"), ("validation", "good"), ("test", "good"), ("test", "crack")):
        for name in ("000", "001"):
            folder = root / "bagel" / part / kind
            picture(folder / "rgb" / f"{name}.png", defect=kind != "good")
            mask(folder / "gt" / f"{name}.png", empty=kind == "good")
            (folder / "xyz").mkdir(exist_ok=True)
            (folder / "xyz" / f"{name}.tiff").write_bytes(b"depth")
    return root


def btad(root: Path) -> Path:
    """Pictures of 01 and 03 are bitmaps; the masks of 03 too, those of the others PNG."""
    for category, image, truth in (("01", ".bmp", ".png"), ("02", ".png", ".png"), ("03", ".bmp", ".bmp")):
        for name in ("0000", "0001"):
            picture(root / category / "train/ok" / f"{name}{image}")
            picture(root / category / "test/ok" / f"{name}{image}")
            picture(root / category / "test/ko" / f"{name}{image}", defect=True)
            mask(root / category / "ground_truth/ko" / f"{name}{truth}")
    return root


def brainmri(root: Path) -> Path:
    for name in ("1 no.jpeg", "2 no.jpeg"):
        picture(root / "no" / name)
    for name in ("Y1.jpg", "Y2.jpg", "Y3.JPG"):
        picture(root / "yes" / name)
    return root


def br35h(root: Path) -> Path:
    for number in range(2):
        picture(root / "no" / f"no{number}.jpg")
        picture(root / "yes" / f"y{number}.jpg")
    picture(root / "pred" / "pred0.jpg")
    return root


def good_bad(root: Path) -> Path:
    for name in ("1", "2"):
        picture(root / "good" / f"{name}.png")
        picture(root / "bad" / f"{name}.png", defect=True)
        mask(root / "masks" / f"{name}.png")
    return root


def mtd(root: Path) -> Path:
    for kind in ("Free", "Blowhole", "Crack"):
        for name in ("exp1_num_1", "exp1_num_2"):
            picture(root / f"MT_{kind}" / "Imgs" / f"{name}_{kind}.jpg", defect=kind != "Free")
            mask(root / f"MT_{kind}" / "Imgs" / f"{name}_{kind}.png", empty=kind == "Free")
    return root


def kolektor(root: Path) -> Path:
    for item in ("kos01", "kos02"):
        for part in range(3):
            picture(root / item / f"Part{part}.jpg", defect=part == 1)
            mask(root / item / f"Part{part}_label.bmp", empty=part != 1)
    return root


def kolektor2(root: Path) -> Path:
    for split, start in (("train", 10000), ("test", 20000)):
        for index in range(2):
            picture(root / split / f"{start + index}.png", defect=index == 1)
            mask(root / split / f"{start + index}_GT.png", empty=index == 0)
    return root


def aitex(root: Path) -> Path:
    """One strip with a mask, one whose mask is in two files, one without; the second good one ends in white padding."""
    for name in ("0001_002_00", "0044_019_04", "0100_025_08"):
        picture(root / "Defect_images" / f"{name}.png", STRIP, defect=True)
    mask(root / "Mask_images/0001_002_00_mask.png", STRIP)
    mask(root / "Mask_images/0044_019_04_mask1.png", STRIP)
    mask(root / "Mask_images/0044_019_04_mask2.png", STRIP)
    picture(root / "NODefect_images/2306881-210020u/0001_000_00.png", STRIP)
    picture(root / "NODefect_images/2306894-210033u/0002_000_01.png", STRIP)
    return root
