"""A shop's library: features of its customers from its transactions."""
