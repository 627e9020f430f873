"""What clients ask over NATS and what they are told: rows, SQL, live queries, notices, discovery."""
