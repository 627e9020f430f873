"""The settings of a server: defaults < TOML file < environment (``KALAM_<NAME>``) < flags.

Every bound of the server stands here, with its unit last in the name. The manual has the same table; a test compares
them.
"""

from __future__ import annotations

import socket
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from kalam.errors import InvalidOption

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
CHANGE_BYTES = 512
"""What a change's message adds to the row that it carries."""


PREFIX = "KALAM_"
NO_SETTINGS = frozenset(
    {
        *("KALAM_URL", "KALAM_CA", "KALAM_CLIENT_CERT", "KALAM_CRASHPOINT", "KALAM_TRACEBACK"),
        *("KALAM_USER", "KALAM_PASSWORD", "KALAM_TOKEN", "KALAM_ADMIN_PASSWORD", "KALAM_ADMIN_PASSWORD_FILE"),
        "KALAM_GRAFANA_PASSWORD",
    }
)
"""Variables of the same form that others read: the command line's, the tests', Grafana's in compose.yaml, and those
that only a first start heeds, so that a secret is no setting, which would be shown."""


class Settings(BaseSettings):
    """What can be set. Built by ``load_settings``; immutable afterwards."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True)

    data_dir: Path = Field(default=Path("kalam-data"), description="where everything is kept")
    accept_loss: bool = Field(
        default=False,
        description="start although something is missing or older than it was; meant for one start",
    )
    auth: Literal["off", "on"] = Field(
        default="off", description="whether who comes has to log in, and may do only what was granted"
    )
    insecure: bool = Field(
        default=False, description="let other machines connect although authentication is off; warned of each minute"
    )
    http_host: str = Field(default="127.0.0.1", description="address of the admin HTTP API")
    http_port: int = Field(default=8080, ge=0, le=65535, description="its port; 0 takes a free one")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="further names, separated by commas, under which a proxy or others address the HTTP API; "
        "`*.name` and `*` match more",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="web origins, separated by commas, whose pages may use the HTTP API; `*` for all, with `auth` on",
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="addresses and networks, separated by commas, of reverse proxies whose `X-Forwarded-For`, "
        "`X-Forwarded-Proto` and `X-Forwarded-Host` are believed",
    )
    metrics_public: bool | None = Field(
        default=None,
        description="whether `/metrics` tells strangers, without the names of tables, while authentication is on; "
        "unset: where `http_host` is loopback and no proxy is trusted",
    )
    tls_cert: Path | None = Field(
        default=None,
        description="a file with the server's certificate and those that it is signed by (PEM): HTTP, NATS and "
        "WebSocket are served with TLS; SIGHUP has it read anew",
    )
    tls_key: Path | None = Field(default=None, description="the file with its private key (PEM, not encrypted)")
    tls_client_ca: Path | None = Field(
        default=None,
        description="a file with the authority (PEM) that has to have signed the certificate of each client; "
        "without it clients need none",
    )
    http_connections_max: int = Field(default=4_000, ge=1, description="HTTP connections that are open")
    http_connections_per_address_max: int = Field(
        default=1_000, ge=1, description="the same of one client's address (a reverse proxy is one client)"
    )
    http_request_s: float = Field(
        default=20.0,
        gt=0,
        description="how long the head of a request may take, and how long its body may bring less than 1 KiB",
    )
    http_stall_s: float = Field(default=60.0, gt=0, description="how long a client may take nothing of its answer")
    http_keep_alive_s: int = Field(
        default=75, ge=1, description="how long a connection may be idle between two requests"
    )
    nats_host: str = Field(default="127.0.0.1", description="address of the embedded nats-server")
    nats_port: int = Field(default=4222, ge=0, le=65535, description="its port; 0 takes a free one")
    nats_ws_port: int = Field(default=0, ge=0, le=65535, description="its WebSocket port; 0 for no WebSocket listener")
    nats_ws_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="web origins, separated by commas, whose pages may open a WebSocket, besides Kalam's own",
    )
    nats_url: str | None = Field(
        default=None, description="an outside NATS instead of the embedded one (also `NATS_URL`)"
    )
    nats_context: str | None = Field(default=None, description="a context of the `nats` CLI that says where NATS is")
    pg_host: str = Field(default="127.0.0.1", description="address of the PostgreSQL door")
    pg_port: int | None = Field(
        default=None, ge=0, le=65535, description="its port, 5432 by custom; 0 takes a free one; unset: no such door"
    )
    scram: bool = Field(
        default=True,
        description="whether what SCRAM-SHA-256 verifies is kept of passwords and tokens when they are set; without it "
        "PostgreSQL clients log in by TLS, or from this machine, alone",
    )
    pg_connections_max: int = Field(default=100, ge=1, description="PostgreSQL sessions that are open")
    pg_blocks: Literal["warn", "refuse"] = Field(
        default="warn",
        description="what becomes of the second write in a PostgreSQL block, which ROLLBACK cannot take back: it is "
        "carried out, and ROLLBACK warns; or it is refused",
    )
    subject_prefix: str = Field(
        default="kalam",
        pattern=r"^[a-z][a-z0-9_]{0,30}$",
        description="first token of every subject, in capitals of every stream",
    )
    log_format: Literal["text", "json"] = Field(default="text", description="how the log is written")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="the least level that is logged"
    )
    location_roots: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="folders and fsspec URLs, separated by commas, under which LOCATION may lie, "
        "besides the data directory",
    )

    row_bytes_max: int = Field(default=MIB, ge=KIB, description="largest event of a row, in bytes")
    batch_rows_max: int = Field(default=100_000, ge=1, description="rows in one insert message")
    statement_rows_max: int = Field(default=1_000_000, ge=1, description="rows that one statement may change in memory")
    temporary_bytes_max: int = Field(
        default=GIB, ge=KIB, description="bytes of the rows that a session's temporary tables have together"
    )
    statement_bytes_max: int = Field(
        default=8 * MIB, ge=KIB, description="length of a SQL text and of an HTTP body, in bytes"
    )
    statements_max: int = Field(default=10_000, ge=1, description="statements in one SQL text")
    rows_body_bytes_max: int = Field(
        default=16 * GIB, ge=KIB, description="length of an HTTP body of rows in bulk, in bytes"
    )
    statement_change_bytes_max: int = Field(
        default=256 * MIB, ge=KIB, description="bytes of the rows that one statement may change"
    )
    result_rows_max: int = Field(default=100_000, ge=1, description="rows of a result in the JSON format")
    result_bytes_max: int = Field(
        default=256 * MIB, ge=KIB, description="memory of a result in the JSON format, in bytes"
    )
    query_time_s: float = Field(default=60.0, gt=0, description="how long a SELECT may run")
    query_memory_bytes: int = Field(
        default=2 * GIB, ge=16 * MIB, description="memory that one query may take; it spills to disk from half of it"
    )
    query_concurrency_max: int = Field(
        default=8, ge=1, description="queries that run at the same time; the others wait"
    )

    insert_rows_inflight_max: int = Field(
        default=200_000, ge=1_000, description="rows that wait for their commit or ack, over all tables"
    )
    insert_bytes_inflight_max: int = Field(default=256 * MIB, ge=MIB, description="the same in bytes of payload")
    commit_rows_max: int = Field(default=20_000, ge=1, description="rows that are committed in one group")
    outbox_bytes_max: int = Field(
        default=GIB, ge=MIB, description="changes that are committed and not yet published, before writes are refused"
    )
    changes_bytes_max: int = Field(default=GIB, ge=MIB, description="size of each change feed kept for replay")
    changes_age_s: int = Field(default=86_400, ge=1, description="age of a change feed kept for replay")
    changes_replicas: int = Field(default=1, ge=1, le=5, description="replicas of the change feeds")
    publish_window: int = Field(
        default=2_000,
        ge=1,
        le=8_000,
        description="events published and not yet acknowledged by JetStream, per STREAM table",
    )
    broker_timeout_s: float = Field(default=5.0, gt=0, description="how long an answer of the broker is waited for")
    broker_start_s: float = Field(
        default=60.0,
        ge=0,
        description="how long a start waits for JetStream: a cluster has none before it has a leader",
    )
    live_queries_max: int = Field(default=20_000, ge=1, description="live queries that are open at the same time")
    live_queries_per_user_max: int = Field(default=10_000, ge=1, description="the same of one user")
    live_views_max: int = Field(
        default=400, ge=1, description="SELECTs whose groups are kept for live queries at the same time"
    )
    live_views_per_user_max: int = Field(default=100, ge=1, description="the same of one user")
    live_queue_bytes_max: int = Field(
        default=8 * MIB, ge=64 * KIB, description="changes that wait for the subscriber of one live query"
    )
    live_held_bytes_max: int = Field(
        default=64 * MIB, ge=64 * KIB, description="changes that one live query holds while its snapshot is handed over"
    )
    live_snapshot_rows_max: int = Field(
        default=1_000_000, ge=1, description="rows with which a live query without last_rows may begin"
    )
    view_backlog_bytes_max: int = Field(
        default=256 * MIB,
        ge=1 * MIB,
        description="changes of a source that wait for one materialized view before inserts into the source wait too; "
        "at twice as many a view over a SHARED table is filled anew",
    )
    view_groups_max: int = Field(
        default=1_000_000,
        ge=1,
        description="groups of one aggregating materialized view, and rows of one whose SELECT is run again; "
        "those that are kept for all live queries of one user together",
    )
    view_idle_s: float = Field(
        default=30.0, gt=0, description="seconds after its last listener before an EPHEMERAL materialized view sleeps"
    )
    stream_window_bytes_max: int = Field(
        default=GIB, ge=MIB, description="memory that one STREAM table's window may take for SELECT"
    )
    stream_windows_bytes_max: int = Field(
        default=2 * GIB, ge=MIB, description="memory of all windows; those used longest ago are let go of"
    )

    hot_bytes_max: int = Field(
        default=512 * MIB, ge=MIB, description="hot rows held in memory before the largest table is flushed early"
    )
    user_flush_rows_min: int = Field(
        default=1_000,
        ge=1,
        description="rows of a user's copy below which the interval does not flush it until a day has passed",
    )
    segment_cache_bytes_max: int = Field(
        default=10 * GIB, ge=MIB, description="local copies of segments whose LOCATION is a URL, in bytes"
    )
    key_cache_bytes_max: int = Field(
        default=GIB, ge=0, description="files of rows that are kept ready for reads by key from segments, in bytes"
    )
    iceberg: bool = Field(
        default=True,
        description="whether other engines read SHARED and USER tables, where the option ICEBERG does not say",
    )
    iceberg_interval_s: float = Field(
        default=10.0, ge=0, description="least time between two commits to the Iceberg table of one table"
    )
    segments_kept_s: float = Field(
        default=3_600.0,
        ge=0,
        description="how long replaced segments and the Iceberg snapshots that name them are kept for other engines",
    )
    segment_rows_max: int = Field(default=1_000_000, ge=1_000, description="rows of one Parquet segment")
    flush_worker_idle_s: float = Field(
        default=60.0, ge=0, description="how long the flush process stays after its last job"
    )
    flush_retry_s_max: float = Field(
        default=300.0, gt=0, description="longest pause between the tries of a failing flush"
    )
    compaction_segments_min: int = Field(
        default=8, ge=2, description="small segments of a copy that are merged by themselves"
    )
    compaction_overrides_percent: int = Field(
        default=10,
        ge=1,
        description="changed rows, in percent of a copy's cold rows, past which it is compacted by itself",
    )
    deleted_cleanup_interval_s: float = Field(
        default=30.0, gt=0, description="how often rows past their `DELETED_RETENTION` are looked for"
    )
    flush_at_shutdown: bool = Field(default=False, description="flush every table before the server stops")
    job_history_s: int = Field(default=7 * 86_400, ge=60, description="how long finished jobs are listed")
    audit_s: int = Field(default=90 * 86_400, ge=3_600, description="how long entries of `system.audit` are kept")
    metrics_tables_max: int = Field(
        default=500, ge=0, description="tables that have series of their own in `/metrics`; the totals count all"
    )
    disk_free_bytes_min: int = Field(
        default=64 * MIB, ge=0, description="free disk below which the server is not ready"
    )

    @field_validator(
        "location_roots", "nats_ws_origins", "allowed_hosts", "cors_origins", "trusted_proxies", mode="before"
    )
    @classmethod
    def split_list(cls, value: Any) -> Any:
        """In the environment a list is one text, separated by commas."""
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Each is an address or a network."""
        for each in value:
            ip_network(each, strict=False)
        return value

    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, values: dict[str, Any]) -> dict[str, Any]:
        """An empty text sets nothing: in the environment and in a file it stands for a value that is not there."""
        return {name: value for name, value in values.items() if value != ""}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags win over the environment, the environment over the TOML file."""
        toml = cls.model_config.get("toml_file")
        return (init_settings, env_settings, *((TomlConfigSettingsSource(settings_cls),) if toml else ()))


def fitted(settings: Settings, payload_bytes_max: int) -> Settings:
    """The settings with ``row_bytes_max`` lowered to what a message of the broker carries, if it carries less."""
    room = payload_bytes_max - CHANGE_BYTES
    return settings if room >= settings.row_bytes_max else settings.model_copy(update={"row_bytes_max": room})


def with_http_port(settings: Settings) -> Settings:
    """The settings with a free port for 0 where the broker has to know it, as an origin of WebSockets, beforehand."""
    if settings.http_port or not settings.nats_ws_port:
        return settings
    family = socket.AF_INET6 if ":" in settings.http_host else socket.AF_INET
    with socket.create_server((settings.http_host, 0), family=family) as probe:
        return settings.model_copy(update={"http_port": probe.getsockname()[1]})


def load_settings(config: Path | None = None, **flags: Any) -> Settings:
    """Build the settings of a server.

    ``config`` is a TOML file with the settings as top-level keys; ``flags`` are settings that were given by hand, those
    that are None being left out. An empty text sets nothing, wherever it stands. Raises InvalidOption that names each
    wrong setting.
    """
    if config is not None and not config.is_file():
        raise InvalidOption(f"the settings file {config} does not exist")
    try:
        return _built(config, flags)
    except ValidationError as exc:
        raise InvalidOption(f"wrong settings: {'; '.join(_all_wrong(exc))}") from exc
    except ValueError as exc:  # tomllib's syntax errors
        raise InvalidOption(f"the settings file {config} is not valid TOML: {exc}") from exc


def faults(config: Path | None = None, **flags: Any) -> list[str]:
    """Each thing for which ``load_settings`` would refuse these settings; the file is there."""
    try:
        _built(config, flags)
    except ValidationError as exc:
        return list(_all_wrong(exc))
    except ValueError as exc:
        return [f"{config} is not valid TOML: {exc}"]
    return []


def sources(config: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any]) -> dict[str, str]:
    """Where each setting comes from that is not its default: the name of the file, of the variable, or of the flag."""
    found: dict[str, str] = {}
    if config is not None:
        found |= {name: str(config) for name, value in tomllib.loads(config.read_text("utf-8")).items() if value != ""}
    variables = {name.upper() for name, value in environment.items() if value != ""}
    for name in Settings.model_fields:
        if f"{PREFIX}{name}".upper() in variables:
            found[name] = f"{PREFIX}{name}".upper()
        if flags.get(name) not in (None, ""):
            found[name] = f"--{name.replace('_', '-')}"
    return found


def _built(config: Path | None, flags: Mapping[str, Any]) -> Settings:
    class Located(Settings):
        model_config = SettingsConfigDict(toml_file=config)

    given = {name: value for name, value in flags.items() if value not in (None, "")}
    found = Located(**given)
    return Settings.model_construct(found.model_fields_set, **found.model_dump())


def _all_wrong(exc: ValidationError) -> Iterator[str]:
    return (_what_is_wrong(".".join(map(str, error["loc"])), error) for error in exc.errors())


def _what_is_wrong(name: str, error: Any) -> str:
    if error["type"] != "extra_forbidden":
        return f"{name}: {error['msg']}"
    meant = next(iter(get_close_matches(name, Settings.model_fields, 1, 0.8)), None)
    return f"{name} is no setting" + (f"; {meant} was probably meant" if meant else "")
