"""SHARED and USER tables as Iceberg tables over their own Parquet segments, for engines other than this one."""
