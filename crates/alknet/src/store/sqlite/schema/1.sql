-- Moments are seconds since 1970, hashes are SHA-256 in hexadecimal, scopes are names
-- joined by commas. What stands here also runs on PostgreSQL.

CREATE TABLE peers (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    scopes TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

-- Whoever has the node's state folder: there from the start, never removed.
INSERT INTO peers (id, name, scopes, created_at) VALUES ('owner', 'owner', '*', 0);

CREATE TABLE peer_keys (
    fingerprint TEXT PRIMARY KEY,
    peer TEXT NOT NULL REFERENCES peers (id) ON DELETE CASCADE,
    -- A key may have less than its peer, never more.
    scopes TEXT NOT NULL,
    kind TEXT NOT NULL,
    comment TEXT NOT NULL,
    openssh TEXT,
    created_at BIGINT NOT NULL
);

CREATE INDEX peer_keys_of_peer ON peer_keys (peer);

CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('token', 'session', 'signin')),
    name TEXT NOT NULL,
    peer TEXT NOT NULL REFERENCES peers (id) ON DELETE CASCADE,
    hash TEXT NOT NULL UNIQUE,
    -- The public half of the key that the token's holder can prove instead of showing it.
    key TEXT UNIQUE,
    scopes TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    last_used_at BIGINT
);

CREATE INDEX tokens_of_peer ON tokens (peer);

CREATE TABLE tickets (
    hash TEXT PRIMARY KEY,
    peer TEXT NOT NULL REFERENCES peers (id) ON DELETE CASCADE,
    scopes TEXT NOT NULL,
    alpn TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at BIGINT
);

CREATE INDEX tickets_of_peer ON tickets (peer, expires_at);
CREATE INDEX tickets_by_age ON tickets (expires_at);
