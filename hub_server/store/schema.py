"""The tables. Portable between SQLite and PostgreSQL: plain types, partial unique indexes, times as Unix seconds.

Every tenant-owned table carries `tenant_id`. Deleted clusters stay as tombstones, so that their keys cannot come back
silently. Migrations are in `migrations/`; a test says that they lead exactly here. Source: product.md section 6.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
    true,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Id = String(40)
# A rowid in SQLite must be INTEGER to count by itself; elsewhere it is 64 bits.
Serial = BigInteger().with_variant(Integer, "sqlite")


def _tenant(*, index: bool = False, primary_key: bool = False) -> Column[str]:
    return Column(
        "tenant_id", Id, ForeignKey("tenants.id"), nullable=False, index=index or None, primary_key=primary_key
    )


def _cluster(*, index: bool = False, primary_key: bool = False) -> Column[str]:
    return Column(
        "cluster_id", Id, ForeignKey("clusters.id"), nullable=False, index=index or None, primary_key=primary_key
    )


def _only(condition: str) -> dict[str, Any]:
    return {"unique": True, "sqlite_where": text(condition), "postgresql_where": text(condition)}


# One row for each thing that the hub remembers about itself: the ULA prefix, when it listened last, ...
meta = Table("meta", metadata, Column("key", String(40), primary_key=True), Column("value", Text, nullable=False))

tenants = Table(
    "tenants",
    metadata,
    Column("id", Id, primary_key=True),
    Column("slug", String(40), nullable=False, unique=True),
    Column("name", String(100), nullable=False),
    Column("number", Integer, nullable=False, unique=True),  # which /64 of the hub's /48
    Column("ipv6", Boolean, nullable=False, server_default=true()),
    Column("kubeconfig_max_ttl", Float, nullable=False),
    Column("created_at", Float, nullable=False),
)

users = Table(
    "users",
    metadata,
    Column("id", Id, primary_key=True),
    Column("email", String(254), nullable=False),
    Column("email_key", String(254), nullable=False, unique=True),  # casefolded
    Column("name", String(100), nullable=False),
    Column("password_hash", Text, nullable=False),
    Column("must_change_password", Boolean, nullable=False, server_default=false()),
    Column("active", Boolean, nullable=False, server_default=true()),
    Column("hub_admin", Boolean, nullable=False, server_default=false()),
    Column("created_at", Float, nullable=False),
)

memberships = Table(
    "memberships",
    metadata,
    Column("tenant_id", Id, ForeignKey("tenants.id"), primary_key=True),
    Column("user_id", Id, ForeignKey("users.id"), primary_key=True),
    Column("role", String(20), nullable=False),
    Column("stream", Boolean, nullable=False, server_default=false()),
    Column("joined_at", Float, nullable=False),
    Index("ix_memberships_user_id", "user_id"),
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", Id, primary_key=True),
    Column("hash", LargeBinary, nullable=False, unique=True),
    Column("user_id", Id, ForeignKey("users.id"), nullable=False, index=True),
    Column("created_at", Float, nullable=False),
    Column("last_used_at", Float, nullable=False),
    Column("reauthenticated_at", Float),
    Column("remote", String(64), nullable=False),
    Column("user_agent", String(200), nullable=False),
)

api_tokens = Table(
    "api_tokens",
    metadata,
    Column("id", Id, primary_key=True),
    _tenant(index=True),
    Column("hash", LargeBinary, nullable=False, unique=True),
    Column("name", String(100), nullable=False),
    Column("role", String(20), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("created_by", Id, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float),
    Column("last_used_at", Float),
    Column("revoked_at", Float),
)

clusters = Table(
    "clusters",
    metadata,
    Column("id", Id, primary_key=True),
    _tenant(),
    Column("name", String(63), nullable=False),
    Column("name_key", String(63), nullable=False),
    Column("subnet_id", Id, ForeignKey("subnets.id"), nullable=False),
    Column("revision", Integer, nullable=False, server_default="1"),  # of the row, for If-Match
    Column("created_at", Float, nullable=False),
    Column("created_by", String(254), nullable=False),
    # status
    Column("phase", String(20), nullable=False),
    Column("reason", String(40)),
    Column("detail", Text, nullable=False, server_default=""),
    Column("since", Float, nullable=False),
    Column("connected_at", Float),  # first
    Column("down_since", Float),  # last packet or goodbye of the outage that is on
    Column("excused", Float, nullable=False, server_default="0"),  # seconds of it in which the hub itself was away
    Column("up_since", Float),  # of the connection that is on
    Column("last_seen", Float),
    Column("last_handshake", Float),
    Column("first_packet_at", Float),  # an initiation, after redemption
    Column("left_at", Float),
    # what was told by the edge: untrusted text
    Column("cluster_uid", String(100)),
    Column("offered_cluster_uid", String(100)),
    Column("kube_version", String(60)),
    Column("agent_version", String(60)),
    Column("chart_version", String(60)),
    Column("hello", JSON),
    Column("api_state", String(20)),
    Column("api_errno", String(40)),
    Column("api_detail", Text, nullable=False, server_default=""),
    Column("nodes_ready", Integer),
    Column("nodes_total", Integer),
    Column("nodes_at", Float),
    # settings
    Column("keepalive", Integer, nullable=False),
    Column("identity_mode", String(20), nullable=False, server_default="service-account"),
    Column("muted_until", Float),
    Column("config_revision", Integer, nullable=False, server_default="1"),
    Column("config_acknowledged", Integer),
    Column("config_error", Text),
    Column("rbac_wanted", JSON),
    Column("rbac_granted", JSON),
    Column("deleted_at", Float),
    Index("ix_clusters_tenant_id", "tenant_id", "deleted_at"),
    Index("uq_clusters_live_name", "tenant_id", "name_key", **_only("deleted_at IS NULL")),
)

invites = Table(
    "invites",
    metadata,
    Column("id", String(10), primary_key=True),  # the public part of the token
    _tenant(),
    _cluster(index=True),
    Column("secret_hash", LargeBinary, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("created_by", String(254), nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("revoked_at", Float),
    Column("used_at", Float),
    Column("used_pubkey", LargeBinary),
    Column("used_from", String(64)),
    Column("used_cluster_uid", String(100)),
    Column("answer", Text),  # the answer's body without the sealed key: repeats are byte-identical
    Index("uq_invites_unused", "cluster_id", **_only("used_at IS NULL AND revoked_at IS NULL")),
)

subnets = Table(
    "subnets",
    metadata,
    Column("id", Id, primary_key=True),
    _tenant(),
    Column("cidr", String(18), nullable=False),
    Column("cidr6", String(49)),
    Column("is_default", Boolean, nullable=False),
    Column("from_pool", Boolean, nullable=False, server_default=false()),
    Column("created_at", Float, nullable=False),
    UniqueConstraint("tenant_id", "cidr"),
)

leases = Table(
    "leases",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    _tenant(),
    Column("subnet_id", Id, ForeignKey("subnets.id"), nullable=False),
    Column("address", BigInteger, nullable=False),
    _cluster(index=True),
    Column("leased_at", Float, nullable=False),
    Column("released_at", Float),
    Column("quarantine_until", Float),
    Column("is_held", Boolean, nullable=False, server_default=true()),  # live or quarantined
    Index("uq_leases_held", "subnet_id", "address", **_only("is_held")),
)

peers = Table(
    "peers",
    metadata,
    Column("public_key", LargeBinary, primary_key=True),  # unique across all tenants, tombstones included
    _tenant(),
    _cluster(),
    Column("psk", LargeBinary, nullable=False),  # sealed under the hub's master key
    Column("address", String(15), nullable=False),
    Column("address6", String(45)),
    Column("endpoint", String(80)),
    Column("created_at", Float, nullable=False),
    Column("retired_at", Float),
    # Made by a new invite while the key before it is in use, and not used yet itself.
    Column("is_pending", Boolean, nullable=False, server_default=false()),
    Index("uq_peers_live", "cluster_id", **_only("retired_at IS NULL AND NOT is_pending")),
    Index("uq_peers_pending", "cluster_id", **_only("retired_at IS NULL AND is_pending")),
)

nodes = Table(
    "nodes",
    metadata,
    Column("cluster_id", Id, ForeignKey("clusters.id"), primary_key=True),
    Column("told_at", Float, nullable=False),
    Column("nodes", JSON, nullable=False),  # the whole table: it is replaced as a whole
)

events = Table(
    "events",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    _tenant(),
    Column("cluster_id", Id, ForeignKey("clusters.id")),
    Column("kind", String(40), nullable=False),
    Column("reason", String(40)),
    Column("detail", Text, nullable=False),
    Column("at", Float, nullable=False, index=True),
    Index("ix_events_cluster_id", "cluster_id", "id"),
    Index("ix_events_tenant_id", "tenant_id", "id"),
)

status_samples = Table(
    "status_samples",
    metadata,
    Column("cluster_id", Id, ForeignKey("clusters.id"), primary_key=True),
    Column("minute", Integer, primary_key=True),
    Column("phase", String(20), nullable=False),  # the worst of the minute
    Column("reason", String(40)),
    Column("rtt", Float),
    Column("rx", BigInteger, nullable=False),
    Column("tx", BigInteger, nullable=False),
    Index("ix_status_samples_minute", "minute"),
)

alerts = Table(
    "alerts",
    metadata,
    Column("id", Id, primary_key=True),
    _tenant(index=True),
    _cluster(),
    Column("kind", String(40), nullable=False),
    Column("severity", String(20), nullable=False),
    Column("detail", Text, nullable=False),
    Column("opened_at", Float, nullable=False),
    Column("down_since", Float),
    Column("resolved_at", Float),
    Column("acknowledged_at", Float),
    Column("acknowledged_by", String(254)),
    Index("uq_alerts_open", "cluster_id", "kind", **_only("resolved_at IS NULL")),
)

channels = Table(
    "channels",
    metadata,
    Column("id", Id, primary_key=True),
    _tenant(index=True),
    Column("name", String(100), nullable=False),
    Column("url", Text, nullable=False),
    Column("kinds", JSON, nullable=False),
    Column("secret", LargeBinary, nullable=False),  # sealed
    Column("created_at", Float, nullable=False),
    Column("deleted_at", Float),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("number", Serial, primary_key=True, autoincrement=True),
    Column("id", Id, nullable=False, unique=True),
    Column("channel_id", Id, ForeignKey("channels.id"), nullable=False),
    Column("cluster_id", Id),
    Column("kind", String(40), nullable=False),
    Column("body", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("next_attempt_at", Float),  # None: delivered, or given up
    Column("delivered_at", Float),
    Column("error", Text),
    Index("ix_deliveries_next_attempt_at", "next_attempt_at"),
    Index("ix_deliveries_channel_id", "channel_id", "number"),
)

kubeconfig_tokens = Table(
    "kubeconfig_tokens",
    metadata,
    Column("id", Id, primary_key=True),
    _tenant(),
    _cluster(index=True),
    Column("user_id", Id, ForeignKey("users.id"), nullable=False, index=True),
    Column("hash", LargeBinary, nullable=False, unique=True),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("last_used_at", Float),
    Column("revoked_at", Float),
    Column("stream", Boolean, nullable=False, server_default=false()),
)

audit = Table(
    "audit",
    metadata,
    Column("chain", Id, primary_key=True),  # a tenant's id, or "hub"
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Float, nullable=False),
    Column("actor", String(254), nullable=False),
    Column("action", String(60), nullable=False),
    Column("cluster_id", Id),
    Column("target", Text, nullable=False),
    Column("result", String(60), nullable=False),
    Column("remote", String(64), nullable=False),
    Column("request_id", String(64), nullable=False),
    Column("detail", JSON, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Index("ix_audit_at", "at"),
)

# The end of each chain: one row to lock while an entry is added.
audit_heads = Table(
    "audit_heads",
    metadata,
    Column("chain", Id, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("actor", Id, primary_key=True),
    Column("key", String(100), primary_key=True),
    Column("request_hash", LargeBinary, nullable=False),
    Column("status", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),  # sealed: it may hold a token that was shown once
    Column("created_at", Float, nullable=False, index=True),
)
