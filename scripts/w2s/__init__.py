"""The library that the stage scripts share: weak-to-strong alignment as artifacts."""
