"""A telecom operator's library: features of its subscribers from call records and top-ups."""
