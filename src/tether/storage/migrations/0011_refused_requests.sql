-- Requests that were refused, for the partner's developers to look at: bounded, and nobody's truth.

CREATE TABLE refused_requests (
    partner    BIGINT NOT NULL,
    at_ms      BIGINT NOT NULL,
    id         {text} NOT NULL,  -- its X-Request-Id
    key_prefix {text} NOT NULL,
    method     {text} NOT NULL,
    path       {text} NOT NULL,  -- with the query, shortened
    status     BIGINT NOT NULL,
    taken_us   BIGINT NOT NULL,  -- microseconds
    error      {text} NOT NULL,  -- what Tether-Error said
    answer     {text} NOT NULL,
    body       {text} NOT NULL,  -- as it was sent, shortened
    PRIMARY KEY (partner, at_ms, id)
) {clustered};

CREATE INDEX refused_requests_by_id ON refused_requests (partner, id);
