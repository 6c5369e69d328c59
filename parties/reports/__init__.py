"""A run's report: one page of HTML that holds everything it shows, and no identifier."""
