-- A batch acknowledged in part is an update, which needs room on the page to be a HOT one, as in the other hot tables. Measured with batches
-- of ten of which half are acknowledged in part: 97% are HOT instead of hardly any, for 6% more pages and 16% less of the index. Applies
-- to pages filled from now on; takes a lock that reads and writes do not mind.
ALTER TABLE leases SET (fillfactor = 70);
