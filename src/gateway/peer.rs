//! Where a request came from.

use http::Extensions;

use crate::memory::Owner;
use crate::net::Call;

/// Whose the memory of a request is before its credentials are known: its address's.
pub(super) fn owner(extensions: &Extensions) -> Option<Owner> {
    extensions.get::<Call>().map(|call| Owner::peer(call.peer().ip()))
}
