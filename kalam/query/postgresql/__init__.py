"""What PostgreSQL has and DataFusion has otherwise, or not at all."""
