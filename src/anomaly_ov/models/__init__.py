"""The networks: encoders, look-twice expert, the folder format that holds both, and the engines that run them."""
