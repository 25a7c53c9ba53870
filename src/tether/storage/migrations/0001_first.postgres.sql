-- Only PostgreSQL has several writers. The last sequence number of a partner's events stands in a
-- row which whoever draws the next numbers holds until its commit: so they become visible in order.
CREATE TABLE event_heads (
    partner BIGINT NOT NULL PRIMARY KEY,
    seq     BIGINT NOT NULL
);
