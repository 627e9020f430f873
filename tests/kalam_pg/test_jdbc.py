"""PostgreSQL's JDBC driver as a program uses it: parameters, batches, cursors, blocks, COPY, notifications."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import psycopg
import pytest

DRIVER = Path("/usr/share/java/postgresql.jar")
if shutil.which("javac") is None or not DRIVER.exists():
    pytest.skip("no JDK with PostgreSQL's driver (Debian: libpostgresql-jdbc-java)", allow_module_level=True)

PROGRAM = r"""
import java.io.*; import java.math.BigDecimal; import java.sql.*; import java.time.*; import java.util.*;
import org.postgresql.*; import org.postgresql.copy.CopyManager;

public class Used {
  static void tell(String what, Object... values) { System.out.println(what + ": " + Arrays.deepToString(values)); }

  static String state(Statement s, String text) {
    try { s.execute(text); return "none"; } catch (SQLException e) { return e.getSQLState(); }
  }

  public static void main(String[] args) throws Exception {
    try (Connection c = DriverManager.getConnection(args[0], "admin", ""); Statement s = c.createStatement()) {
      s.execute("CREATE SHARED TABLE jdbc.rows (id BIGINT PRIMARY KEY, small SMALLINT, n INT, name TEXT, half DOUBLE, "
        + "single FLOAT, price DECIMAL(10,2), flag BOOLEAN, raw BLOB, day DATE, at TIMESTAMP, code UUID, doc JSON)");
      UUID code = UUID.fromString("0189c8a6-1111-7222-8333-444455556666");
      try (PreparedStatement p = c.prepareStatement("INSERT INTO jdbc.rows VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?::json)")) {
        p.setLong(1, 1L << 60); p.setShort(2, (short) -7); p.setInt(3, 7); p.setString(4, "Zoë ☃"); p.setDouble(5, 0.1);
        p.setFloat(6, 0.1f); p.setBigDecimal(7, new BigDecimal("-12.30")); p.setBoolean(8, true);
        p.setBytes(9, new byte[] {0, -1}); p.setObject(10, LocalDate.of(1815, 12, 10));
        p.setObject(11, OffsetDateTime.parse("2026-01-02T03:04:05.678901Z"));
        p.setObject(12, code); p.setString(13, "{\"a\": 1}");
        tell("inserted", p.executeUpdate());
        p.setLong(1, 2); for (int n = 2; n <= 13; n++) p.setNull(n, Types.NULL);
        tell("nulls", p.executeUpdate());
      }
      for (int round = 0; round < 2; round++)  // behind five executions the driver turns to binary
        try (PreparedStatement p = c.prepareStatement("SELECT * FROM jdbc.rows WHERE id = ?")) {
          for (int n = 0; n < 7; n++) {
            p.setLong(1, 1L << 60);
            try (ResultSet r = p.executeQuery()) {
              r.next();
              if (n == 6 || n == 0) tell("row", r.getLong(1), r.getShort(2), r.getInt(3), r.getString(4),
                r.getDouble(5), r.getFloat(6), r.getBigDecimal(7), r.getBoolean(8), r.getBytes(9),
                r.getObject(10, LocalDate.class),
                r.getObject(11, OffsetDateTime.class), r.getObject(12), r.getString(13));
            }
          }
        }
      try (ResultSet r = s.executeQuery("SELECT name, half, flag FROM jdbc.rows WHERE id = 2")) {
        r.next(); r.getDouble(2); tell("null", r.getString(1), r.wasNull(), r.getBoolean(3), r.wasNull());
      }
      try (PreparedStatement p = c.prepareStatement("SELECT id FROM jdbc.rows WHERE id = ANY (?) ORDER BY id")) {
        p.setArray(1, c.createArrayOf("bigint", new Long[] {2L, 3L}));
        try (ResultSet r = p.executeQuery()) { r.next(); tell("list", r.getLong(1), r.next()); }
        ResultSetMetaData m = p.getMetaData();
        tell("described", m.getColumnTypeName(1), p.getParameterMetaData().getParameterTypeName(1));
      }
      try (PreparedStatement p = c.prepareStatement("INSERT INTO jdbc.rows (id, name) VALUES (?, ?)")) {
        for (int n = 100; n < 2100; n++) { p.setLong(1, n); p.setString(2, "n" + n); p.addBatch(); }
        tell("batch", Arrays.stream(p.executeBatch()).sum());
      }
      String keyed = "INSERT INTO jdbc.rows (id) VALUES (?)";
      try (PreparedStatement p = c.prepareStatement(keyed, new String[] {"id", "flag"})) {
        p.setLong(1, 50); p.executeUpdate();
        try (ResultSet r = p.getGeneratedKeys()) { r.next(); tell("keys", r.getLong(1), r.getObject(2)); }
      }
      tell("changed", s.executeUpdate("UPDATE jdbc.rows SET name = 'x' WHERE id BETWEEN 100 AND 109"));
      c.setAutoCommit(false);
      try (Statement f = c.createStatement()) {
        f.setFetchSize(100);
        int n = 0; long sum = 0;
        try (ResultSet r = f.executeQuery("SELECT id FROM jdbc.rows WHERE id >= 100 AND id < 5000")) {
          while (r.next()) { n++; sum += r.getLong(1); }
        }
        tell("fetched", n, sum);
        f.setMaxRows(3); n = 0;
        try (ResultSet r = f.executeQuery("SELECT id FROM jdbc.rows")) { while (r.next()) n++; }
        tell("at most", n);
      }
      tell("states", state(s, "SELECT nothing FROM jdbc.rows"), state(s, "SELECT 1"));
      c.rollback();
      Savepoint saved = c.setSavepoint("one");
      tell("inside", state(s, "SELECT 1/0")); c.rollback(saved); tell("behind", state(s, "SELECT 1"));
      c.commit(); c.setAutoCommit(true);
      tell("errors", state(s, "SELECT 1 FROM jdbc.none"), state(s, "SELEC"),
        state(s, "INSERT INTO jdbc.rows (id) VALUES (2)"), state(s, "CREATE INDEX i ON jdbc.rows (n)"));
      c.setReadOnly(true); c.setAutoCommit(false); tell("read only", state(s, "DELETE FROM jdbc.rows")); c.rollback();
      c.setAutoCommit(true); c.setReadOnly(false);
      s.execute("SELECT 1; SELECT 2");
      s.getResultSet().next(); int one = s.getResultSet().getInt(1);
      s.getMoreResults(); s.getResultSet().next(); tell("several", one, s.getResultSet().getInt(1));
      CopyManager copies = c.unwrap(PGConnection.class).getCopyAPI();
      StringReader in = new StringReader("9001,\"a, b\"\n9002,\n");
      tell("copied in", copies.copyIn("COPY jdbc.rows (id, name) FROM STDIN CSV", in));
      StringWriter out = new StringWriter();
      String some = "SELECT id, name FROM jdbc.rows WHERE id > 9000 AND id < 10000 ORDER BY id";
      copies.copyOut("COPY (" + some + ") TO STDOUT CSV", out);
      tell("copied out", out.toString().trim().replace("\n", "|"));
      s.setQueryTimeout(1);
      tell("timeout", state(s, "SELECT count(*) FROM generate_series(1, 3000000) a, generate_series(1, 3000000) b"));
      s.setQueryTimeout(0);
      s.execute("LISTEN \"kalam.shared.jdbc.rows\"");
      try (Connection d = DriverManager.getConnection(args[0], "admin", ""); Statement t = d.createStatement()) {
        t.execute("DELETE FROM jdbc.rows WHERE id = 9002");
      }
      PGNotification[] heard = null;
      for (int n = 0; n < 100 && (heard == null || heard.length == 0); n++)
        heard = c.unwrap(PGConnection.class).getNotifications(500);
      tell("heard", heard[0].getName(), heard[0].getParameter().contains("\"delete\""));
      tell("valid", c.isValid(5), c.getCatalog(), c.getTransactionIsolation() == Connection.TRANSACTION_READ_COMMITTED);
      c.setSchema("jdbc");
      try (ResultSet r = s.executeQuery("SELECT count(*) FROM rows WHERE id = 9001")) {
        r.next(); tell("schema", r.getLong(1), c.getSchema());
      }
    }
  }
}
"""


ROW = (
    "[1152921504606846976, -7, 7, Zoë ☃, 0.1, 0.1, -12.30, true, [0, -1], 1815-12-10, 2026-01-02T03:04:05.678901Z, "
    '0189c8a6-1111-7222-8333-444455556666, {"a":1}]'
)
TOLD = f"""
inserted: [1]
nulls: [1]
row: {ROW}
row: {ROW}
row: {ROW}
row: {ROW}
null: [null, true, false, true]
list: [2, false]
described: [int8, _int8]
batch: [2000]
keys: [50, null]
changed: [10]
fetched: [2000, 2199000]
at most: [3]
states: [42703, 25P02]
inside: [22012]
behind: [none]
errors: [42P01, 42601, 23505, 0A000]
read only: [25006]
several: [1, 2]
copied in: [2]
copied out: [9001,"a, b"|9002,]
timeout: [57014]
heard: [kalam.shared.jdbc.rows, true]
valid: [true, kalam, true]
schema: [1, jdbc]
"""


def test_a_java_program_does_all_that_its_driver_can(
    pg_url: str, connection: psycopg.Connection, tmp_path: Path
) -> None:
    connection.execute("CREATE NAMESPACE jdbc")
    source = tmp_path / "Used.java"
    source.write_text(PROGRAM, encoding="utf-8")
    options = [f"-D{name}=UTF-8" for name in ("file.encoding", "stdout.encoding")]
    command = ["java", "-Duser.timezone=UTC", *options, "-cp", DRIVER, source, "jdbc:" + pg_url.replace("admin@", "")]
    run = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip().splitlines() == TOLD.strip().splitlines()
