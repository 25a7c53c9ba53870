-- Endpoints of webhooks, each with its place in the log of its partner. Nothing is copied for a
-- message: what an endpoint has not had is behind its place.

CREATE TABLE webhooks (
    partner      BIGINT NOT NULL,
    id           {text} NOT NULL,
    url          {text} NOT NULL,
    types        {text} NOT NULL,  -- with blanks between them
    charger_id   {text},
    vehicle_id   {text},
    description  {text} NOT NULL,
    enabled      BIGINT NOT NULL,
    max_batch    BIGINT NOT NULL,
    rate_mhz     BIGINT,           -- requests in a thousand seconds
    signature    {text} NOT NULL,
    secret       {text} NOT NULL,  -- encrypted, by a key that is not in the database
    old_secret   {text} NOT NULL,  -- signs, too …
    old_until_ms BIGINT NOT NULL,  -- … until then
    created_ms   BIGINT NOT NULL,
    seq          BIGINT NOT NULL,  -- the place: the last event, …
    session_ms   BIGINT NOT NULL,  -- … the last change of a session, …
    session_id   {text} NOT NULL,
    passed       {text} NOT NULL,  -- … and what is sent of the next one, ids with blanks between them
    head         {text} NOT NULL,  -- the next message, once it failed
    tries        BIGINT NOT NULL,  -- of it
    due_ms       BIGINT NOT NULL,  -- when it is sent
    failing_since_ms BIGINT,
    stopped      {text} NOT NULL,  -- why nothing is sent any more; else empty
    success_ms   BIGINT,           -- the newest
    lease        {text} NOT NULL,  -- the process that delivers …
    lease_ms     BIGINT NOT NULL,  -- … until then, if it says nothing
    fence        BIGINT NOT NULL,  -- another one after each change of the place by somebody else
    PRIMARY KEY (partner, id)
);

-- Messages that failed while others passed, or that are wanted once more.
CREATE TABLE webhook_parked (
    partner  BIGINT NOT NULL,
    webhook  {text} NOT NULL,
    id       {text} NOT NULL,  -- of the message, which says what it is about
    tries    BIGINT NOT NULL,
    due_ms   BIGINT,           -- NULL: all tries failed
    since_ms BIGINT NOT NULL,  -- when it failed first
    PRIMARY KEY (partner, webhook, id)
);

CREATE TABLE webhook_attempts (
    partner    BIGINT NOT NULL,
    webhook    {text} NOT NULL,
    id         {text} NOT NULL,  -- in the order of time
    at_ms      BIGINT NOT NULL,
    message_id {text} NOT NULL,
    type       {text} NOT NULL,
    messages   BIGINT NOT NULL,  -- in it
    status     BIGINT,           -- of the answer, if there was one
    taken_ms   BIGINT NOT NULL,
    error      {text} NOT NULL,  -- empty if it succeeded
    answer     {text} NOT NULL,  -- its beginning
    PRIMARY KEY (partner, webhook, id)
) {clustered};

-- When a session was first there: by its version alone nobody can tell whether an endpoint, which may
-- have been away for long, has been told of it.
ALTER TABLE session_versions ADD COLUMN created_ms BIGINT NOT NULL DEFAULT 0;
