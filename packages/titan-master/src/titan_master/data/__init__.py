"""The data plane: bytes, offsets, files. Nothing here decides what runs where."""
