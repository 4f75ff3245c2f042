"""Pictures in and overlays out: safe reading, AnyRes views with their geometry, words for places, overlays."""
