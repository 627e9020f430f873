"""Who may log in to the broker, and what they may publish and hear there."""
