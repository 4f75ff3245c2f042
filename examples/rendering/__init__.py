"""A small renderer for the example pictures: parts as height fields, lit by lamps, seen by a camera. NumPy and SciPy.

Lengths are millimetres. x points right and y down in the picture, z towards the camera; the part lies on z = 0.
"""
