"""SELECT: its text in pieces, and what has to be known of it without planning it."""
