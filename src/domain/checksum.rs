//! A checksum of the opaque tokens that callers keep for us: it refuses what was mangled on the way. It is no secret.

/// FNV-1a of these parts, one behind the other.
pub(super) fn checksum(parts: &[&[u8]]) -> [u8; 4] {
    let fold = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    parts.iter().copied().flatten().fold(0x811c_9dc5, fold).to_be_bytes()
}
