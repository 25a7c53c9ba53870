-- Whoever catches up passes changes while sessions change again, and come again further behind. So
-- the place alone does not say of which sessions an endpoint has been told.
ALTER TABLE webhooks ADD COLUMN told_ms BIGINT NOT NULL DEFAULT 0;  -- of all that were there then

UPDATE webhooks SET told_ms = session_ms;
