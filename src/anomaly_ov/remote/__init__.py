"""The same findings put to any model behind an OpenAI-compatible endpoint."""
