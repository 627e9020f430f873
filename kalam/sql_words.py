"""The words that completion offers: what Kalam's SQL begins statements with, and DataFusion's functions.

The functions stand here and are not asked of DataFusion, which the server does not load; a test compares them.
"""

from __future__ import annotations

from typing import Final

_KEYWORDS = """
ADD ADMIN ALL ALTER ANALYZE AND AS ASC BEGIN BETWEEN BIGINT BLOB BOOLEAN BY CASCADE CASE CAST CHECK COLUMN COLUMNS
COMMENT COMPACT CONFLICT CREATE CROSS CURRENT_ROLES CURRENT_USER DATE DECIMAL DEFAULT DELETE DESC DESCRIBE DISABLE
DISTINCT DO DOMAIN DOUBLE DROP ELSE ENABLE END EPHEMERAL EXCEPT EXECUTE EXISTS EXPIRES EXPLAIN FALSE FLOAT FLUSH FOR
FROM FULL GRANT GRANTS GROUP HAVING HEADER HISTORY IF ILIKE IN INNER INSERT INT INTERSECT INTERVAL INTO IS JETSTREAM
JOB JOBS JOIN JSON KEY KILL LAKE LEFT LEVEL LIKE LIMIT LIVE LOCATION LOCK MATCHED MATERIALIZED MAX_BUFFER MERGE
NAMESPACE
NAMESPACES NOADMIN NOT NOTHING NULL NULLS OFFSET ON OPTIONS OR ORDER OUTER OVER OWNER PARTITION PASSWORD PATH
POLICIES POLICY PRIMARY PUBLIC QUERIES QUERY REFRESH RENAME REPLACE RETENTION RETURNING REVOKE RIGHT ROLE ROLES ROW
SAMPLE SECURITY SELECT SESSION SESSIONS SET SHARED SHOW SMALLINT STATS STREAM STREAMS SUBJECT SUBJECT_KEY SUBSCRIBE
TABLE TABLES TEMPORARY TEXT THEN TIMESTAMP TO TOKEN TOKENS TRUE TRUNCATE TYPE UNION UNIT UNLOCK UNTIL UPDATE USE USER
USERS USING UUID VALID VALUES VIEW VIEWS WHEN WHERE WITH
"""
_FUNCTIONS = """
abs acos approx_distinct approx_median approx_percentile_cont array_agg array_length array_to_string ascii asin
atan atan2 avg bit_and bit_length bit_or bit_xor bool_and bool_or btrim cbrt ceil char_length chr coalesce concat
concat_ws contains corr cos cot count covar_pop covar_samp cume_dist current_date current_timestamp date_bin
date_part date_trunc decode degrees dense_rank digest encode ends_with exp factorial first_value floor
from_unixtime gcd generate_series greatest grouping initcap instr isnan lag last_value lcm lead least left length
levenshtein ln log log10 log2 lower lpad ltrim make_date max md5 median min nanvl now nth_value ntile nullif nvl
octet_length overlay percent_rank pi position power radians random range rank regexp_count regexp_like regexp_match
regexp_replace repeat replace reverse right round row_number rpad rtrim sha256 sha512 signum sin split_part sqrt
starts_with stddev stddev_pop string_agg string_to_array strpos substr substring sum tan to_char to_date to_hex
to_timestamp to_timestamp_millis to_timestamp_micros to_unixtime translate trim trunc upper uuid var_pop var_samp
"""
KEYWORDS: Final = tuple(_KEYWORDS.split())
FUNCTIONS: Final = tuple(_FUNCTIONS.split())
