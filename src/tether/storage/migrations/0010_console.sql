-- Who is signed in to the console, and the links with which operators sign in. Not partner data, and
-- no secret: of tokens there is the SHA-256 only.

CREATE TABLE console_sessions (
    digest     {text} NOT NULL PRIMARY KEY,
    key_digest {text} NOT NULL,  -- of the key that signed in; nothing for the operator
    created_ms BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL
) {clustered};

CREATE INDEX console_sessions_of_key ON console_sessions (key_digest, created_ms);

CREATE TABLE console_links (
    digest     {text} NOT NULL PRIMARY KEY,
    expires_ms BIGINT NOT NULL
) {clustered};
