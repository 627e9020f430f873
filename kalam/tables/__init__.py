"""What STREAM, SHARED and USER tables mean, on top of storage and of the event ports."""
