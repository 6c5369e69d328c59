"""A bank's library: segments of its customers, people or companies, and labels of their credit."""
