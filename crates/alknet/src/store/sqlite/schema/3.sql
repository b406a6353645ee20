-- A key that a browser authorised ends with the session it was authorised in. Keys that the
-- owner added have none.
ALTER TABLE peer_keys ADD COLUMN token TEXT REFERENCES tokens (id) ON DELETE CASCADE;

CREATE INDEX peer_keys_of_token ON peer_keys (token);

-- Tokens that have expired are kept: looking for what goes must not pass over them.
DROP INDEX tokens_by_end;

CREATE INDEX tokens_by_kind_and_end ON tokens (kind, expires_at);
