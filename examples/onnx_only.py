"""A detector without this package: ONNX Runtime, NumPy and Pillow are all it takes.

    anomaly-ov models export tiny --out exported
    python onnx_only.py exported buttons_burnt.jpg sweets_cracked.jpg

Prints the head's score of each picture, where its map is highest, and writes the map as NAME.map.png. The picture is
seen whole, as one view; crops of it would be further rows of `pixels`. Calibration and threshold are in config.json.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

folder, *names = (Path(argument) for argument in sys.argv[1:])
encoder, expert = (onnxruntime.InferenceSession(str(folder / f"{name}.onnx")) for name in ("encoder", "expert"))
about = json.loads(encoder.get_modelmeta().custom_metadata_map["anomaly_ov"])
side, cap = about["views"]["base_size"], about["views"]["cap"]
print(f"{about['name']} {about['revision']}, weights in {about['precision']}, map of {about['grid_hw']} cells")

for name in names:
    picture = ImageOps.exif_transpose(Image.open(name)).convert("RGB")
    if cap and max(picture.size) > cap:
        picture = picture.resize([max(1, length * cap // max(picture.size)) for length in picture.size], 3)
    view = picture.resize((side, side), Image.Resampling.BICUBIC)
    pixels = np.asarray(view)[None]  # (views, side, side, 3), uint8

    features = encoder.run(None, {"pixels": pixels})  # final, level_0, level_1, ...
    inputs = [one.name for one in expert.get_inputs()]
    maps, score, _, _ = expert.run(None, dict(zip(inputs, features, strict=True)))

    row, column = np.unravel_index(maps[0].argmax(), maps[0].shape)
    print(f"{name}: score {score[0]:.3f}, highest {maps[0].max():.3f} in row {row}, column {column} of the map")
    Image.fromarray((maps[0] * 255).astype(np.uint8)).resize(picture.size).save(Path(name.name).with_suffix(".map.png"))
