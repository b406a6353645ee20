-- A ticket stands for what it was issued to, with whichever provider that is, and ends with
-- it. Those that are open are seconds old and can be asked for again.
DROP TABLE tickets;

CREATE TABLE tickets (
    hash TEXT PRIMARY KEY,
    -- The identity as it was.
    identity TEXT NOT NULL,
    name TEXT NOT NULL,
    credential TEXT NOT NULL,
    scopes TEXT NOT NULL,
    alpn TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at BIGINT
);

CREATE INDEX tickets_of_identity ON tickets (identity, expires_at);
CREATE INDEX tickets_by_age ON tickets (expires_at);

-- What is over is looked for whenever a session begins.
CREATE INDEX tokens_by_end ON tokens (expires_at);

-- Authorities whose certificates are good for a peer, each for one principal.
CREATE TABLE peer_authorities (
    fingerprint TEXT NOT NULL,
    principal TEXT NOT NULL,
    peer TEXT NOT NULL REFERENCES peers (id) ON DELETE CASCADE,
    -- A certificate may have less than its peer, never more.
    scopes TEXT NOT NULL,
    openssh TEXT NOT NULL,
    comment TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (fingerprint, principal)
);

CREATE INDEX peer_authorities_of_peer ON peer_authorities (peer);

-- Counts the changes that can end a session: a running node watches it.
CREATE TABLE revision (
    id BIGINT PRIMARY KEY,
    count BIGINT NOT NULL
);

INSERT INTO revision (id, count) VALUES (0, 0);

-- What is no longer good, as far back as there is room. Nothing is decided by it.
CREATE TABLE revocations (
    -- The revision that ended it.
    revision BIGINT PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('peer', 'key', 'authority', 'token', 'session')),
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    peer TEXT NOT NULL,
    scopes TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    revoked_at BIGINT NOT NULL,
    revoked_by TEXT NOT NULL
);

CREATE INDEX revocations_of ON revocations (id);
