"""What runs a detector's networks: one interface (``interface``), NumPy in and out, whatever is behind it.

``opening.open_engine`` chooses one for a model folder. Importing this package loads neither torch nor a runtime.
"""
