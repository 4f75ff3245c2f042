"""The verbs that make and measure models; each module holds one, or a part of ``eval``."""
