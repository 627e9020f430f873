"""A table over a stream of others, where users log in: who may make it, who may read it, and which of its rows."""

from __future__ import annotations

import json
from pathlib import Path

from live_subscriber import subscribe
from policy_server import PolicyServer, policy_server

CREATE = "CREATE STREAM TABLE app.t (who TEXT FROM TOKEN 2, n BIGINT) OVER STREAM 'S'"
READS = (
    ("SELECT n FROM app.t ORDER BY n", [[1], [3]]),
    ("SELECT n FROM app.t WHERE _seq > 1", [[3]]),
    ("SELECT n FROM app.t WHERE who = 'ben'", []),
    ("SELECT _seq, _subject FROM app.t WHERE _seq < 3", [[1, "s.ada"]]),
    ("SELECT count(*) FROM app.t", [[2]]),
    ("SELECT count(*) FROM app.t WHERE _raw IS NOT NULL OR _error IS NOT NULL", [[2]]),
)


async def publish(server: PolicyServer, subject: str, number: int) -> None:
    """Publish to a stream of the account in which Kalam is, where its users may not."""
    foreign = server.running.engine._dispatch.foreign._tables.port  # noqa: SLF001 - Kalam's own connection
    js = foreign._connection.client.jetstream()  # noqa: SLF001
    await js.add_stream(name="S", subjects=["s.*"])
    await js.publish(subject, json.dumps({"n": number}).encode())


async def test_it_is_made_by_administrators_and_read_by_who_was_granted_as_policies_say(tmp_path: Path) -> None:
    async with policy_server(tmp_path) as server:
        await server.users("ada", "ben", "eve")
        await server.result("admin", "CREATE NAMESPACE app; GRANT CREATE, SELECT ON NAMESPACE app TO ben")
        for number, who in enumerate(("ada", "ben", "ada"), 1):
            await publish(server, f"s.{who}", number)
        for statement in ("SHOW STREAMS", "DESCRIBE STREAM 'S'", CREATE):
            assert await server.code("ben", statement) == "permission_denied"
            assert await server.code("admin", statement) == "ok"
        assert await server.code("eve", "SELECT n FROM app.t") != "ok"
        await server.result("admin", "GRANT SELECT ON TABLE app.t TO ada")
        assert await server.rows("ada", "SELECT count(*) FROM app.t") == [[3]]
        assert await server.code("admin", "GRANT JETSTREAM ON TABLE app.t TO ada") == "unsupported"
        await server.policy("app.t", "who = CURRENT_USER()")
        await server.secure("app.t")
        for _ in range(2):  # with and without a window at hand
            for text, rows in READS:
                assert await server.rows("ada", text) == rows
        client = await server.connect("ada")
        live = await subscribe(client, "SELECT n, _seq FROM app.t")
        assert [row["n"] for row in live.rows] == [1, 3]
        await publish(server, "s.ben", 4)
        await publish(server, "s.ada", 5)
        [change] = await live.wait_changes(1)
        assert change["row"] == {"n": 5, "_seq": 5}
        await client.close()


async def test_a_bucket_is_made_and_read_likewise_and_keys_that_are_hidden_are_not_told(tmp_path: Path) -> None:
    async with policy_server(tmp_path) as server:
        await server.users("ada", "ben")
        await server.result("admin", "CREATE NAMESPACE app; GRANT CREATE, SELECT ON NAMESPACE app TO ben")
        foreign = server.running.engine._dispatch.foreign._tables.port  # noqa: SLF001 - Kalam's own connection
        bucket = await foreign._connection.client.jetstream().create_key_value(bucket="b")  # noqa: SLF001
        for key, number in {"ada.1": 1, "ben.1": 2}.items():
            await bucket.put(key, json.dumps({"n": number}).encode())
        create = "CREATE STREAM TABLE app.b (who TEXT FROM TOKEN 1, n BIGINT) OVER BUCKET 'b'"
        assert await server.code("ben", create) == "permission_denied"
        assert await server.code("admin", create) == "ok"
        await server.result("admin", "GRANT SELECT ON TABLE app.b TO ada")
        await server.policy("app.b", "who = CURRENT_USER()")
        await server.secure("app.b")
        for _ in range(2):  # before and after all keys are at hand
            assert await server.rows("ada", "SELECT _key FROM app.b WHERE _key = 'ben.1'") == []
            assert await server.rows("ada", "SELECT n, _raw IS NOT NULL FROM app.b") == [[1, True]]
        client = await server.connect("ada")
        live = await subscribe(client, "SELECT _key, n FROM app.b")
        assert live.rows == [{"_key": "ada.1", "n": 1}]
        await bucket.put("ben.1", b'{"n": 3}')
        await bucket.put("ada.1", b'{"n": 4}')
        await live.wait_changes(1)
        await bucket.delete("ben.1")
        await bucket.delete("ada.1")
        assert [(change["op"], change["row"]["n"]) for change in await live.wait_changes(2)] == [
            ("update", 4),
            ("delete", 4),
        ]
        await client.close()
