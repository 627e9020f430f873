"""Tables over streams that others made: read where they are, and never changed."""
