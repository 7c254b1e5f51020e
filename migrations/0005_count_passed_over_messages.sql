-- How many of the skipped messages the label rule of a reader has passed over: counted in the statement that moves the cursor over
-- them. The version before this one does not add to it.
ALTER TABLE subscriptions ADD COLUMN passed_over bigint NOT NULL DEFAULT 0;
