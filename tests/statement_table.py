"""Who may carry out which statement: a line for every statement of the language, for tests at several doors."""

from __future__ import annotations

from dataclasses import dataclass

from guarded_world import INSIDE

TABLE = """
none reader writer owner member admin trusted

-- reading
0 + - + + + 0   SELECT v FROM lab.t WHERE id = 1
0 + - + + + 0   SELECT count(*) FROM lab.t
0 + - + + + 0   SELECT v FROM lab.notes
0 + - + + + -   SELECT v FROM lab.logs
0 0 0 0 0 + 0   SELECT bars FROM vault.gold WHERE id = 1
0 0 0 0 0 + 0   SELECT (SELECT max(bars) FROM vault.gold)
0 + - + + + 0   EXPLAIN SELECT v FROM lab.t
0 + - + + + 0   SUBSCRIBE TO SELECT v FROM lab.t
0 + + + + + 0   DESCRIBE lab.t
0 + + + + + 0   DESCRIBE TABLE lab.t HISTORY
0 + + + + + 0   SHOW STATS FOR TABLE lab.t
0 + + + + + 0   SHOW COLUMNS FROM lab.t
0 + + + + + 0   SHOW CREATE TABLE lab.t
0 0 0 0 0 + 0   DESCRIBE vault.gold
+ + + + + + +   SHOW TABLES
0 + + + + + +   SHOW TABLES IN lab
0 0 0 0 0 + 0   SHOW TABLES IN vault
+ + + + + + +   SHOW NAMESPACES
+ + + + + + +   SHOW JOBS
+ + + + + + +   SHOW QUERIES
+ + + + + + +   SHOW LIVE QUERIES
+ + + + + + +   SHOW LAKE
- - - - - + -   SHOW STREAMS
- - - - - 0 -   DESCRIBE STREAM 'nothing'
0 + + + + + +   USE lab
0 0 0 0 0 + 0   USE vault

-- writing
0 - + + - + 0   INSERT INTO lab.t VALUES (100, 'x')
0 - + + - + 0   INSERT INTO lab.t VALUES (1, 'x') ON CONFLICT (id) DO NOTHING
0 - - + - + 0   INSERT INTO lab.t VALUES (100, 'x') ON CONFLICT (id) DO UPDATE SET v = excluded.v
0 - - + - + 0   INSERT INTO lab.t VALUES (100, 'x') RETURNING v
0 - - + - + 0   INSERT INTO lab.spare SELECT id, v FROM lab.t
0 - + + - + 0   INSERT INTO lab.notes VALUES (100, 'x')
0 - + + - + -   INSERT INTO lab.logs VALUES (100, 'x')
0 - + + - + 0   UPDATE lab.spare SET v = 'x'
0 - - + - + 0   UPDATE lab.t SET v = 'x' WHERE id = 100
0 - - + - + 0   UPDATE lab.spare SET v = v
0 - - + - + 0   UPDATE lab.spare SET v = t.v FROM lab.t WHERE t.id = spare.id
0 0 0 0 0 + 0   UPDATE lab.spare SET v = 'x' FROM vault.gold
0 - + + - + 0   DELETE FROM lab.spare
0 - - + - + 0   DELETE FROM lab.spare USING lab.t WHERE t.id = spare.id
0 - - + - + 0   DELETE FROM lab.t WHERE id = 100
0 - - + - + 0   DELETE FROM lab.spare RETURNING id
0 - - + - + 0   MERGE INTO lab.spare USING lab.t ON t.id = spare.id WHEN NOT MATCHED THEN INSERT VALUES (t.id, t.v)
0 - - + - + 0   MERGE INTO lab.spare USING lab.t ON t.id = spare.id WHEN MATCHED THEN UPDATE SET v = t.v
0 0 0 0 0 + 0   INSERT INTO vault.gold VALUES (100, 'x')
0 0 0 0 0 + 0   DELETE FROM vault.gold WHERE id = 100

-- tables and namespaces; {table} is lab.t, or a new one of the owner's where it is carried out
- - - - - + -   CREATE NAMESPACE fresh
- - - - - + -   DROP NAMESPACE doomed CASCADE
0 - - + - + -   CREATE TABLE lab.fresh (id INT PRIMARY KEY)
0 - - + - + 0   CREATE TABLE lab.fresh AS SELECT id, v FROM lab.t
0 0 0 0 0 + 0   CREATE TABLE lab.fresh AS SELECT bars FROM vault.gold
u u u u u u u   CREATE TEMPORARY TABLE fresh (id INT)
0 0 0 0 0 u 0   CREATE TEMPORARY TABLE fresh AS SELECT bars FROM vault.gold
0 - - - - 0 -   CREATE STREAM TABLE lab.fresh (id INT) OVER STREAM 'nothing'
0 - - - - + -   CREATE TABLE lab.fresh (id INT PRIMARY KEY) WITH (LOCATION = '{folder}/elsewhere')
0 - - + - + 0   DROP TABLE {table}
+ + + + + + +   DROP TABLE IF EXISTS lab.nothing
0 - - + - + 0   CREATE VIEW lab.fresh AS SELECT v FROM lab.t
0 0 0 0 0 + 0   CREATE VIEW lab.fresh AS SELECT bars FROM vault.gold
0 0 0 0 0 0 0   DROP VIEW lab.nothing
+ + + + + + +   DROP VIEW IF EXISTS lab.nothing
0 - - + - + 0   TRUNCATE TABLE {table}
0 - - + - + 0   ALTER TABLE {table} ADD COLUMN w INT
0 - - + - + 0   ALTER TABLE {table} DROP COLUMN v
0 - - + - + 0   ALTER TABLE {table} ALTER COLUMN v SET DEFAULT 'x'
0 - - + - + 0   ALTER TABLE {table} RENAME TO renamed
0 - - + - + 0   COMMENT ON TABLE {table} IS 'said'
0 - - + - + 0   COMMENT ON COLUMN {table}.v IS 'said'
0 - - - - + 0   ALTER TABLE {table} OWNER TO bystander
0 - - + - + 0   FLUSH TABLE {table}
+ + + + + + +   FLUSH ALL TABLES
0 + + + + + +   FLUSH ALL TABLES IN lab
0 - - + - + 0   COMPACT TABLE {table}
0 - - + - + 0   CHECK TABLE {table}
0 - - + - + 0   REFRESH LAKE FOR TABLE {table}
+ + + + + + +   REFRESH LAKE
- - - - - 0 -   KILL JOB 'nothing'
0 0 0 0 0 0 0   KILL QUERY 'nothing'
0 0 0 0 0 0 0   KILL LIVE QUERY 'nothing'
- - - - - + -   EXECUTE AS USER 'reader' SELECT 1
- - - - - u -   EXECUTE AS USER 'reader' SHOW USERS

-- views; {view} is lab.v, or a new one of the owner's where it is carried out
0 - - + - + 0   CREATE MATERIALIZED VIEW lab.fresh AS SELECT id, v FROM lab.t
0 0 0 0 0 + 0   CREATE MATERIALIZED VIEW lab.fresh AS SELECT id, bars FROM vault.gold
0 - - + - + 0   CREATE EPHEMERAL MATERIALIZED VIEW lab.fresh AS SELECT id, v FROM lab.t
0 0 0 0 0 + 0   CREATE EPHEMERAL MATERIALIZED VIEW lab.fresh AS SELECT id, bars FROM vault.gold
0 - 0 + - + 0   DROP MATERIALIZED VIEW {view}
+ + + + + + +   DROP MATERIALIZED VIEW IF EXISTS lab.nothing
0 - 0 + - + 0   ALTER MATERIALIZED VIEW {view} SET (refresh = '1s')
0 - 0 + - + 0   REFRESH MATERIALIZED VIEW {view}
0 + 0 + + + 0   SELECT v FROM lab.v
0 - 0 u - u 0   INSERT INTO lab.v VALUES (1, 'x')
+ + + + + + +   SHOW VIEWS

-- users and rights
- - - - - + -   CREATE USER fresh PASSWORD 'a password of fresh'
- - - - - + -   ALTER USER bystander LOCK
- - - - - + -   ALTER USER bystander PASSWORD 'another good password'
+ + + + + + +   ALTER USER {me} PASSWORD 'a right good password'
- - - - - + -   ALTER USER {me} ADMIN
- - - - - + -   DROP USER doomed
- - - - - + -   CREATE ROLE fresh
- - - - - + -   DROP ROLE doomed
- - - - - + -   GRANT readers TO bystander
- - - - - + -   REVOKE readers FROM bystander
0 - - + - + 0   GRANT SELECT ON TABLE lab.t TO bystander
0 - - + - + 0   REVOKE SELECT ON TABLE lab.t FROM bystander
0 - - - - + -   GRANT SELECT ON NAMESPACE lab TO bystander
0 - - - - + -   REVOKE SELECT ON NAMESPACE lab FROM bystander
0 - - - - + -   GRANT JETSTREAM ON TABLE lab.logs TO bystander
0 0 0 0 0 + 0   GRANT SELECT ON TABLE vault.gold TO bystander
0 - - + - + 0   CREATE POLICY fresh ON {table} USING (v = CURRENT_USER())
0 - - 0 - 0 0   DROP POLICY nothing ON lab.t
+ - - + - + +   DROP POLICY IF EXISTS nothing ON lab.t
0 0 0 0 0 + 0   CREATE POLICY fresh ON vault.gold USING (true)
0 - - + - + 0   ALTER TABLE {table} ENABLE ROW LEVEL SECURITY
0 - - + - + 0   ALTER TABLE {table} DISABLE ROW LEVEL SECURITY
+ + + + + + +   SHOW POLICIES
0 + + + + + 0   SHOW POLICIES ON lab.t
+ + + + + + +   CREATE TOKEN 'fresh'
- - - - - + -   CREATE TOKEN 'fresh' FOR bystander
0 0 0 0 0 0 0   DROP TOKEN 'nothing'
- - - - - + -   DROP TOKEN 'doomed' FOR bystander
+ + + + + + +   SHOW USERS
+ + + + + + +   SHOW ROLES
+ + + + + + +   SHOW GRANTS
0 + + + + + 0   SHOW GRANTS ON TABLE lab.t
+ + + + + + +   SHOW TOKENS
+ + + + + + +   SHOW SESSIONS
0 0 0 0 0 0 0   KILL SESSION 'nothing'
"""
"""``+`` it is carried out, ``-`` it is denied, ``0`` what it is about does not exist for them, ``u`` nobody may."""


@dataclass(frozen=True)
class Line:
    """A statement, and what it is answered to each of ``INSIDE``."""

    text: str
    expected: str

    def of(self, person: str) -> str:
        return self.expected[INSIDE.index(person)]


def lines() -> list[Line]:
    """The lines of the table."""
    found = []
    head, *rest = [line for line in TABLE.strip().splitlines() if line and not line.startswith("--")]
    assert tuple(head.split()) == INSIDE
    for line in rest:
        cells, text = line[: 2 * len(INSIDE)].split(), line[2 * len(INSIDE) :].strip()
        assert len(cells) == len(INSIDE), line
        found.append(Line(text, "".join(cells)))
    return found
