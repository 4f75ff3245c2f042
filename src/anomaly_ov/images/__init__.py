"""Pictures in and maps out: safe reading, AnyRes views with their geometry, significance maps, regions, overlays."""
