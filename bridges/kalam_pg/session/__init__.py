"""A client's session: its block, its settings, its statements and portals, and what they answer."""
