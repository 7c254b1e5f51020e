//! What libpq would read of the environment, where the driver here does not.

use std::collections::BTreeMap;
use std::env;

/// What fills the gaps of a URL. The driver reads the others: PGUSER, PGPASSWORD, PGPASSFILE, PGDATABASE, PGAPPNAME, PGOPTIONS, PGSSLROOTCERT,
/// PGSSLCERT, PGSSLKEY.
const OF_LIBPQ: [&str; 5] = ["PGHOST", "PGPORT", "PGSSLMODE", "PGTARGETSESSIONATTRS", "PGCONNECT_TIMEOUT"];

/// The variables of libpq that are set.
pub(super) fn of_libpq() -> BTreeMap<&'static str, String> {
    OF_LIBPQ.into_iter().filter_map(|name| Some((name, env::var_os(name)?.into_string().ok()?))).collect()
}
