-- Who asks for an API key, until some days after it was decided. Not partner data, and no secret: of
-- the address at which the requester waits there is the SHA-256 of its token only, and the key is
-- made when it is claimed.

CREATE TABLE key_requests (
    digest        {text} NOT NULL PRIMARY KEY,
    created_ms    BIGINT NOT NULL,
    expires_ms    BIGINT NOT NULL,  -- from then on it is gone
    client        {text} NOT NULL,  -- the address, or network, that it came from
    organisation  {text} NOT NULL,
    email         {text} NOT NULL,
    purpose       {text} NOT NULL,
    fleet         {text} NOT NULL,
    decided_ms    BIGINT,
    partner       BIGINT,           -- nothing while it waits, and if it was declined
    rate_requests BIGINT,           -- what the key may do
    rate_window_s BIGINT,
    burst         BIGINT,
    lasts_ms      BIGINT,           -- from when it is claimed; nothing: for good
    is_test       BIGINT,
    claimed_ms    BIGINT,
    claimed_key   {text}            -- the SHA-256 of the key
) {clustered};
