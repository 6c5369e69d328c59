"""The officer's console: pages on loopback, for people who do not use a shell."""

PORT = 8460
