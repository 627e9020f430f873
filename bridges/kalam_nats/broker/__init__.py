"""The broker itself: where it is, one of our own as a child, the connection to it and its JetStream API."""
