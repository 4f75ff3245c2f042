"""The networks: encoder, look-twice expert, and the folder format that holds both."""
