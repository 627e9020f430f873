"""The door to NATS: subjects, the embedded nats-server, the connection to a broker, what is asked of and told to it."""
