-- Who changed what: written beside the change, never changed, and gone after its own time.

CREATE TABLE audit_entries (
    partner    BIGINT NOT NULL,  -- whom it concerns; 0: nobody that is there
    at_ms      BIGINT NOT NULL,
    id         {text} NOT NULL,
    actor      {text} NOT NULL,  -- key, operator or system
    key_prefix {text} NOT NULL,
    action     {text} NOT NULL,
    target     {text} NOT NULL,
    before     {text} NOT NULL,  -- JSON, or nothing
    after      {text} NOT NULL,
    request_id {text} NOT NULL,
    address    {text} NOT NULL,
    PRIMARY KEY (partner, at_ms, id)
) {clustered};

CREATE INDEX audit_entries_by_time ON audit_entries (at_ms, id);
