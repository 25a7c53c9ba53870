-- Beside refused requests some that were answered are kept: those have no error. And of how long a body
-- was of which only the beginning is kept; 0: all of it is here, -1: it came in chunks.
ALTER TABLE refused_requests ADD COLUMN cut_from BIGINT NOT NULL DEFAULT 0;
CREATE INDEX answered_requests ON refused_requests (partner, at_ms) WHERE status < 400 AND error = '';
