"""Whatever bytes a peer or a file brings, a parser ends with a value or a numbered error, soon.

A target (`fuzz.target`) is one parser, with small valid inputs to start from. `make fuzz` runs them
all under atheris (libFuzzer); tests/fuzz runs the same targets through hypothesis.
"""
