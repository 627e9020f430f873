"""What is done to tables in the background, in jobs and worker processes: flush, compaction, clean-up."""
